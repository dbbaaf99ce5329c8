"""What runs inside the sandbox: the zygote, which imports, and the workers, which are forked from it.

It must start fast, so it loads neither msgspec nor cloudpickle nor the rest of the SDK unless the user's code does.
"""
