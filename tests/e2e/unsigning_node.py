"""A node that never signs a voucher, nor a receipt."""

from potluck_node import caller, main

if __name__ == "__main__":
    caller.Caller._voucher = lambda self, lease, data: None  # type: ignore[method-assign]
    caller.Caller._receipt = lambda self, lease, data: lease.settled.set()  # type: ignore[method-assign]
    main.main()
