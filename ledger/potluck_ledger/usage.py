"""How much worker time everybody used and gave, by the hour, from what a lab's journals hold. Pure.

A lease counts once, however many journals show it and however often: the most that both of its sides signed.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from potluck_ledger.entries import Content, Receipt, Transfer, Voucher
from potluck_ledger.envelope import Envelope

HOUR_US = 3_600_000_000
# Leases that are remembered, each with about 300 bytes; one that is forgotten could be counted again.
LEASES_MAX = 1_000_000
# Older use matters to no period; grants without a period that last longer would have it back.
KEEP_HOURS = 400 * 24


class What(NamedTuple):
    """What was run: an app, on a GPU model as its provider writes it; empty for a machine without one."""

    app: str
    model: str


# Of leases with nothing but vouchers, until their provider says what they ran.
UNKNOWN = What("", "")


class _Lease(NamedTuple):
    what: What
    hour: int
    us: int


class Running(NamedTuple):
    """A lease that has no receipt yet, by its last voucher."""

    lease: str
    caller: str
    what: What
    lease_us: int


# Whose, and in which hour → microseconds.
_Hours = dict[int, int]


class Usage:
    """Feed it with `record`, in any order; `running` replaces what one provider's open leases have used so far."""

    def __init__(self) -> None:
        self._used: defaultdict[str, defaultdict[What, _Hours]] = defaultdict(lambda: defaultdict(dict))
        self._given: defaultdict[str, defaultdict[str, _Hours]] = defaultdict(lambda: defaultdict(dict))
        self._leases: OrderedDict[tuple[str, str], _Lease] = OrderedDict()
        self._running: dict[str, dict[str, Running]] = {}
        self._sent: dict[bytes, Transfer] = {}

    def record(self, envelope: Envelope, content: Content) -> None:
        """Count what both sides signed, and transfers. What a provider says alone counts as little as it does in any
        balance; it tells what a lease ran whose caller signed nothing but vouchers."""
        is_whole = len(envelope.signatures) == 2
        if isinstance(content, Receipt):
            known = self._leases.get((content.provider, content.lease))
            what = What(content.label.partition(".")[0], content.gpu_model)
            if is_whole or known:
                lease_us = content.lease_us if is_whole or not known else known.us
                self._count(content, _Lease(what, content.ended_us // HOUR_US, lease_us))
        elif isinstance(content, Voucher) and is_whole:
            self._count(content, _Lease(UNKNOWN, content.at_us // HOUR_US, content.lease_us))
        elif isinstance(content, Transfer):
            self._sent[content.nonce] = content

    def _count(self, signed: Receipt | Voucher, lease: _Lease) -> None:
        key = (signed.provider, signed.lease)
        known = self._leases.get(key)
        if known:
            if (lease.us, lease.what != UNKNOWN) <= (known.us, known.what != UNKNOWN):
                return
            self._add(signed, known, -1)
        self._leases[key] = lease
        if len(self._leases) > LEASES_MAX:
            self._leases.popitem(last=False)
        self._add(signed, lease, 1)
        self._running.get(signed.provider, {}).pop(signed.lease, None)

    def _add(self, signed: Receipt | Voucher, lease: _Lease, sign: int) -> None:
        for hours in (self._used[signed.caller][lease.what], self._given[signed.provider][signed.caller]):
            hours[lease.hour] = hours.get(lease.hour, 0) + sign * lease.us

    def running(self, provider: str, leases: list[Running]) -> None:
        """The open leases of one provider, all of them."""
        open_ones = {each.lease: each for each in leases if (provider, each.lease) not in self._leases}
        self._running[provider] = open_ones

    def gone(self, provider: str) -> None:
        """Nothing is heard of a provider any more: what its leases used comes with its journal."""
        self._running.pop(provider, None)

    def callers(self) -> set[str]:
        """Everybody who used something."""
        return {*self._used, *(each.caller for leases in self._running.values() for each in leases.values())}

    def used_us(self, caller: str, since_us: int, counts: Callable[[What], int]) -> int:
        """What a caller used from the hour of `since_us` on; `counts` says how much of each kind, in thousandths."""
        return sum(us * counts(what) // 1000 for what, us in self._used_since(caller, since_us))

    def _used_since(self, caller: str, since_us: int) -> Iterator[tuple[What, int]]:
        first = since_us // HOUR_US
        for what, hours in self._used[caller].items() if caller in self._used else ():
            yield what, sum(us for hour, us in hours.items() if hour >= first)
        for leases in self._running.values():
            yield from ((each.what, each.lease_us) for each in leases.values() if each.caller == caller)

    def given_us(self, provider: str, since_us: int, counts: Callable[[str], bool]) -> int:
        """What a provider gave from the hour of `since_us` on, to callers that count."""
        first = since_us // HOUR_US
        by_caller = self._given.get(provider, defaultdict[str, _Hours](dict))
        return sum(
            us for caller, hours in by_caller.items() if counts(caller) for hour, us in hours.items() if hour >= first
        )

    def transfers(self, since_us: int, until_us: int) -> list[Transfer]:
        """Those in a window, in an order that all agree on."""
        found = [each for each in self._sent.values() if since_us <= each.at_us < until_us]
        return sorted(found, key=lambda each: (each.at_us, each.nonce))

    def forget(self, now_us: int) -> None:
        """What is older than `KEEP_HOURS`."""
        first = now_us // HOUR_US - KEEP_HOURS
        for everybody in (self._given, self._used):
            for hours in (hours for kinds in everybody.values() for hours in kinds.values()):
                for hour in [each for each in hours if each < first]:
                    del hours[hour]
        self._sent = {nonce: each for nonce, each in self._sent.items() if each.at_us // HOUR_US >= first}
