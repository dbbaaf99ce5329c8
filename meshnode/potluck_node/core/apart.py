"""Which peer may run which replica of an input: never two on one peer, and on different networks where there is a
choice. Part of the call core."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from potluck.wire.offer import Offer
from potluck_node.core.demand import Function, Input, Lease
from potluck_node.core.placement import Candidate, misfit

if TYPE_CHECKING:
    from potluck_node.core.hiring import Hiring
    from potluck_node.core.verify import Case

# How long an input waits for a peer that has not had it yet, when none is there: offers come and go within that.
NOBODY_ELSE_US = 20_000_000
# So many replicas that wait for another peer are looked at before nothing new is begun: who is that far ahead of the
# others, with which it has to agree, gains nothing by going on.
WAITING_MAX = 128
# Of so many canaries it is remembered who had them: a hundred peers and as many canaries as a function may have.
HAD_MAX = 10_000
# One owner's machines are often in one network: a provider hands out no less than these. Bits.
_PREFIX_V4, _PREFIX_V6 = 24, 48


class Apart:
    """`give_up` fails an input for which there are not enough peers."""

    def __init__(self, hiring: Hiring, inputs: dict[int, Input], give_up: Callable[[Case, int], None]) -> None:
        self._hiring, self._inputs, self._give_up = hiring, inputs, give_up
        # Canaries that peers were sent, by digest.
        self._had: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def may(self, number: int, name: str) -> bool:
        """Whether a lease may have an input: of a replica, when its peer has and had no other of the same."""
        item, lease = self._inputs.get(number), self._hiring.leases[name]
        if item and not lease.takes(len(item.payload)):
            return False
        case = item.case if item else None
        if case is None:
            return True
        return self.may_peer(case, lease.peer) and not (case.numbers - {number}) & lease.inputs.keys()

    def may_peer(self, case: Case, peer: str) -> bool:
        if case.is_canary and (self._hiring.standing(peer).code or self.has_had(peer, case.payload)):
            return False
        return not case.has_answered(peer)

    def assign(self, function: Function, now_us: int) -> None:
        """Send what is queued where it may run; the rest waits in its order."""
        kept: deque[int] = deque()
        while function.queue and len(kept) < WAITING_MAX:
            free = {name for name in function.leases if self._hiring.leases[name].slots and self._room(name)}
            if not free:
                break
            number = function.queue.popleft()
            name = self._best(function.spec.image, number, free)
            if name:
                self._hiring.send(name, number, now_us)
            else:
                kept.append(number)
        function.queue.extendleft(reversed(kept))
        leases = [lease for lease in self._hiring.of(function) if lease.slots]
        sizes = (len(self._inputs[number].payload) for number in kept)
        function.too_large = max((size for size in sizes if not any(each.takes(size) for each in leases)), default=0)

    def _room(self, name: str) -> bool:
        return self._hiring.leases[name].room() > 0

    def _best(self, image: str, number: int, free: set[str]) -> str:
        case, leases = self._inputs[number].case, self._hiring.leases
        free = {name for name in free if leases[name].takes(len(self._inputs[number].payload))}
        if not free:
            return ""
        if case is None or case.is_fresh:
            return min(sorted(free), key=lambda name: len(leases[name].inputs) / leases[name].slots)
        fitting = [name for name in sorted(free) if self.may(number, name) and self._fits_model(case, name)]
        if not fitting:
            return ""
        near = self._networks_of(case)

        def rank(name: str) -> tuple[bool, int, float]:
            lease = leases[name]
            # Who checks is checked, too: best one of whom least is known.
            streak = self._hiring.reputation.streak(lease.peer, image) if case.rule.adaptive else 0
            return bool(near & self._networks(lease.peer)), streak, len(lease.inputs) / lease.slots

        return min(fitting, key=rank)

    def _fits_model(self, case: Case | None, name: str) -> bool:
        if case is None or not case.rule.same_gpu or case.model is None:
            return True
        return self._hiring.model(self._hiring.leases[name]) == case.model

    def sent(self, case: Case, lease: Lease) -> None:
        """A replica went to a lease: the others run on the same model, if that is wanted."""
        case.stuck_us = 0
        if case.is_canary:
            self._had[lease.peer, _digest(case.payload)] = None
            if len(self._had) > HAD_MAX:
                self._had.popitem(last=False)
        if case.model is None:
            case.model = self._hiring.model(lease)

    def has_had(self, peer: str, payload: bytes) -> bool:
        """Whether a peer was sent a canary before."""
        return (peer, _digest(payload)) in self._had

    def queue(self, function: Function, number: int) -> None:
        """A further replica goes before all that is new, and behind those that wait already."""
        waiting = enumerate(function.queue)
        at = next((at for at, each in waiting if self._is_new(each)), len(function.queue))
        function.queue.insert(at, number)

    def _is_new(self, number: int) -> bool:
        case = self._inputs[number].case
        return case is None or case.is_fresh

    # More peers

    def blocked(self, function: Function) -> tuple[list[Case], bool]:
        """Those that wait for a peer which nobody has asked yet, and whether nothing else waits. Canaries wait for
        nobody."""
        found: list[Case] = []
        every = True
        for number in islice(function.queue, WAITING_MAX):
            case = self._inputs[number].case
            if case is None or case.is_fresh:
                # All behind it are, but for a few: replicas are queued before them.
                return found, every and not function.leases
            if any(self.may(number, name) and self._fits_model(case, name) for name in function.leases):
                every = False
            elif not case.is_canary:
                found.append(case)
        return found, every

    def fitting(self, case: Case, candidates: list[Candidate]) -> list[Candidate]:
        """Of peers that may be asked, those for a replica; of other networks than the rest, if there are such."""
        fitting = [each for each in candidates if self.may_peer(case, each.offer.peer)]
        near = self._networks_of(case)
        return [each for each in fitting if not near & networks(each.offer)] or fitting

    def look(self, function: Function, cases: list[Case], now_us: int) -> None:
        """Nobody can be asked now: fail those for which that has lasted, and nobody else is there at all, or whoever is
        refuses or cannot be reached."""
        could = [
            offer.peer
            for offer in self._hiring.offers(now_us)
            if offer.peer not in function.verdicts.keys() | function.unreached.keys() | function.refused_by
            and not misfit(offer, function.spec, self._hiring.secrets)
        ]
        leases = self._hiring.of(function)
        for case in cases:
            held = {lease.peer for lease in leases if case.numbers & lease.inputs.keys()}
            away = {lease.peer for lease in leases if not lease.takes(len(case.payload))}
            if held or any(self.may_peer(case, peer) for peer in could if peer not in away):
                case.stuck_us = 0
            elif not case.stuck_us:
                case.stuck_us = now_us
            elif now_us - case.stuck_us >= NOBODY_ELSE_US and not case.over:
                self._give_up(case, now_us)

    # Networks

    def _networks_of(self, case: Case | None) -> frozenset[str]:
        """Those of all who have or had a replica."""
        if case is None:
            return frozenset()
        leases = self._hiring.leases.values()
        peers = {each.peer for each in case.answers}
        peers |= {lease.peer for lease in leases if case.numbers & lease.inputs.keys()}
        return frozenset().union(*(self._networks(peer) for peer in peers))

    def _networks(self, peer: str) -> frozenset[str]:
        offer = self._hiring.offer(peer)
        return networks(offer) if offer else frozenset()


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()


def networks(offer: Offer) -> frozenset[str]:
    """The networks in which a peer says that it can be reached; loopback is none."""
    found = set()
    for address in offer.addresses[:16]:
        parts = address.split("/")
        if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
            continue
        try:
            ip = ipaddress.ip_address(parts[2])
        except ValueError:
            continue
        if not ip.is_loopback:
            prefix = _PREFIX_V4 if ip.version == 4 else _PREFIX_V6
            found.add(str(ipaddress.ip_network((ip, prefix), strict=False)))
    return frozenset(found)
