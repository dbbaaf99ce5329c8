"""A node that gives nothing more to whoever left three seconds unsigned."""

from potluck_ledger import balance
from potluck_node import main

if __name__ == "__main__":
    balance.UNSIGNED_US = 3_000_000
    main.main()
