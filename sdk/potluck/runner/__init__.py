"""What runs inside the sandbox: the zygote and its workers. Imports msgspec, cloudpickle and the standard library only."""
