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


class Accounts:
    """One account for each counterparty of `owner`, kept up to date receipt by receipt."""

    def __init__(self, owner: str, receipts: Iterable[Receipt] = ()) -> None:
        self._owner = owner
        self.by_peer: dict[str, Account] = {}
        for receipt in receipts:
            self.add(receipt)

    def add(self, receipt: Receipt) -> None:
        """Count one more receipt of the owner's."""
        gave = receipt.provider == self._owner
        peer = receipt.caller if gave else receipt.provider
        account = self.by_peer.setdefault(peer, Account(peer))
        if gave:
            account.given_us += receipt.lease_us
            account.inputs_given += receipt.inputs
        else:
            account.used_us += receipt.lease_us
            account.inputs_used += receipt.inputs
