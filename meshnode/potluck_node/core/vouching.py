"""When the provider asks for vouchers, and when it stops a lease that gets none: kept apart from the provider core,
which knows what runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from potluck_ledger.entries import Voucher
from potluck_ledger.vouchers import ProviderVouchers


@dataclass(slots=True)
class _Watch:
    """Since `at_us` at most `running` inputs use what is left until something is due."""

    at_us: int
    left_us: int
    running: int

    @property
    def due_us(self) -> int:
        return self.at_us + self.left_us // self.running + 1

    def one_more(self, now_us: int) -> None:
        self.left_us = max(0, self.left_us - (now_us - self.at_us) * self.running)
        self.at_us, self.running = now_us, self.running + 1


class Vouching:
    """`us` is the provider; nobody asks themselves for vouchers."""

    def __init__(self, us: str) -> None:
        self._us = us
        self._leases: dict[str, ProviderVouchers] = {}
        # Of leases that use something.
        self._watched: dict[str, _Watch] = {}

    def opened(self, lease: str, caller: str) -> None:
        if self._us and caller != self._us:
            self._leases[lease] = ProviderVouchers(lease, caller, self._us)

    def closed(self, lease: str) -> bytes:
        """The last voucher of it that both signed; empty when there is none."""
        self._watched.pop(lease, None)
        found = self._leases.pop(lease, None)
        return found.envelope if found else b""

    def began(self, lease: str, used_us: int, now_us: int) -> None:
        """One more input of a lease runs; those that ended have used so much."""
        watch = self._watched.get(lease)
        if watch:
            watch.one_more(now_us)
        elif vouchers := self._leases.get(lease):
            self._watched[lease] = _Watch(now_us, vouchers.left_us(used_us), 1)

    def times(self) -> Iterator[int]:
        """When to look again."""
        return (watch.due_us for watch in self._watched.values())

    def due(self, now_us: int) -> list[str]:
        """Leases whose use is to be reckoned now."""
        return sorted(lease for lease, watch in self._watched.items() if watch.due_us <= now_us)

    def reckoned(self, lease: str, used_us: int, running: int, now_us: int) -> tuple[Voucher | None, bool]:
        """What is to be offered, and whether the lease must end; so many inputs of it run."""
        vouchers = self._leases[lease]
        if vouchers.must_stop(used_us):
            return None, True
        offer = vouchers.reckon(used_us, now_us)
        if running:
            self._watched[lease] = _Watch(now_us, vouchers.left_us(used_us), running)
        else:
            self._watched.pop(lease)
        return offer, False

    def answered(self, lease: str, envelope: bytes) -> str:
        """Returns why a countersigned voucher is not taken, or ""."""
        found = self._leases.get(lease)
        # One that comes after the lease's end is late, and no fault: the receipt has all.
        return found.answered(envelope) if found else ""
