"""A node whose receipts claim a hundred seconds more than its functions ran."""

from msgspec.structs import replace

from potluck_node import main, settling

honest = settling.write_receipt


def claim_more(*args, **kwargs):
    receipt = honest(*args, **kwargs)
    return replace(receipt, lease_us=receipt.lease_us + 100_000_000)


if __name__ == "__main__":
    settling.write_receipt = claim_more
    main.main()
