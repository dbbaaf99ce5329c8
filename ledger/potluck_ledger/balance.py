"""Who gave what to whom, from verified receipts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from potluck_ledger.entries import Receipt


@dataclass
class Account:
    """Microseconds of leased time given to and used from one peer, and how many inputs that were."""

    peer: str
    given_us: int = 0
    used_us: int = 0
    inputs_given: int = 0
    inputs_used: int = 0

    @property
    def balance_us(self) -> int:
        """Positive when we gave more than we used."""
        return self.given_us - self.used_us


def accounts(owner: str, receipts: Iterable[Receipt]) -> dict[str, Account]:
    """One account for each counterparty."""
    found: dict[str, Account] = {}
    for receipt in receipts:
        if receipt.provider == owner:
            account = found.setdefault(receipt.caller, Account(receipt.caller))
            account.given_us += receipt.lease_us
            account.inputs_given += receipt.inputs
        else:
            account = found.setdefault(receipt.provider, Account(receipt.provider))
            account.used_us += receipt.lease_us
            account.inputs_used += receipt.inputs
    return found
