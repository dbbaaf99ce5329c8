"""Who gave what to whom, from verified entries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from typing import Any

import msgspec

from potluck_ledger.entries import Content, Receipt, Transfer, Voucher
from potluck_ledger.envelope import Envelope

# What one peer may leave unsigned before it gets no more: six leases that ended with the caller's crash, microseconds;
# and for peers that use much, a part of what they signed.
UNSIGNED_US, UNSIGNED_PERCENT = 30_000_000, 5


@dataclass
class Account:
    """Microseconds of leased time given to and used from one peer, and how many inputs that were. `unsigned_us` were
    given too, as we say alone; `sent_us` and `got_us` are transfers."""

    peer: str
    given_us: int = 0
    used_us: int = 0
    inputs_given: int = 0
    inputs_used: int = 0
    unsigned_us: int = 0
    sent_us: int = 0
    got_us: int = 0

    @property
    def owes_too_much(self) -> bool:
        """Whether the peer left more unsigned than mishaps explain: `UNSIGNED_US`, and a part of what it signed."""
        return self.unsigned_us > UNSIGNED_US + self.given_us * UNSIGNED_PERCENT // 100

    @property
    def balance_us(self) -> int:
        """Positive when we gave more than we used."""
        return self.given_us - self.used_us + self.got_us - self.sent_us


@dataclass
class Accounts:
    """One account for each counterparty of `owner`, kept up to date entry by entry.

    A receipt that both signed counts. One that its provider signed alone counts as far as there is a voucher for it.
    """

    owner: str
    by_peer: dict[str, Account] = field(default_factory=dict)
    # Of leases that ended without a receipt of both: what vouchers say.
    _vouched: dict[tuple[str, str], int] = field(default_factory=dict)
    # Hashes of leases that have a receipt of both, 70 bytes for each: no second is counted twice.
    _settled: set[int] = field(default_factory=set)

    def state(self) -> bytes:
        """What was counted, but for which leases are settled; for `restore`."""
        accounts = [astuple(each) for each in self.by_peer.values()]
        return msgspec.msgpack.encode((accounts, [(*key, us) for key, us in self._vouched.items()]))

    def restore(self, state: bytes, settled: Iterable[tuple[str, str]]) -> None:
        """Go on from there; `settled` are the leases of which there is a receipt of both, by peer and name."""
        accounts, vouched = msgspec.msgpack.decode(state, type=tuple[list[list[Any]], list[tuple[str, str, int]]])
        self.by_peer = {peer: Account(peer, *sums) for peer, *sums in accounts}
        self._vouched = {(peer, lease): us for peer, lease, us in vouched}
        self._settled = {hash(key) for key in settled}

    def record(self, envelope: Envelope, content: Content) -> None:
        """Count one more entry of the owner's."""
        if isinstance(content, Receipt):
            self._receipt(content, is_whole=len(envelope.signatures) == 2)
        elif isinstance(content, Voucher) and len(envelope.signatures) == 2:
            self._voucher(content)
        elif isinstance(content, Transfer):
            self._transfer(content)

    def totals(self) -> tuple[int, int]:
        """Microseconds given and used, over all peers."""
        accounts = self.by_peer.values()
        return sum(each.given_us for each in accounts), sum(each.used_us for each in accounts)

    def account(self, peer: str) -> Account:
        """That of one peer."""
        return self.by_peer.setdefault(peer, Account(peer))

    def _receipt(self, receipt: Receipt, *, is_whole: bool) -> None:
        gave = receipt.provider == self.owner
        key = (receipt.caller if gave else receipt.provider, receipt.lease)
        if hash(key) in self._settled:
            return
        vouched_us = self._vouched.get(key, 0)
        account = self.account(key[0])
        if is_whole:
            self._settled.add(hash(key))
            self._vouched.pop(key, None)
            self._count(account, receipt.lease_us - vouched_us, gave=gave)
        elif gave:
            account.unsigned_us += max(0, receipt.lease_us - vouched_us)
        if gave:
            account.inputs_given += receipt.inputs
        elif is_whole:
            account.inputs_used += receipt.inputs

    def _voucher(self, voucher: Voucher) -> None:
        gave = voucher.provider == self.owner
        key = (voucher.caller if gave else voucher.provider, voucher.lease)
        more_us = voucher.lease_us - self._vouched.get(key, 0)
        if more_us > 0 and hash(key) not in self._settled:
            self._vouched[key] = voucher.lease_us
            self._count(self.account(key[0]), more_us, gave=gave)

    def _count(self, account: Account, us: int, *, gave: bool) -> None:
        if gave:
            account.given_us += us
        else:
            account.used_us += us

    def _transfer(self, transfer: Transfer) -> None:
        if transfer.giver == self.owner:
            self.account(transfer.taker).sent_us += transfer.lease_us
        else:
            self.account(transfer.giver).got_us += transfer.lease_us
