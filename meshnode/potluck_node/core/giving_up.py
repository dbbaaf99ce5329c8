"""When nobody can run what waits: whose word ends it, and after how long. Part of the call core."""

from __future__ import annotations

from collections.abc import Callable

from potluck.errors import NoPeerError
from potluck.wire import Failure
from potluck.wire.offer import Offer
from potluck_node.core import events as ev
from potluck_node.core.demand import Function, Input, Lease
from potluck_node.core.hiring import NO_PEER_GRACE_US, Hiring
from potluck_node.core.offers import OfferBook, skew_text
from potluck_node.core.placement import describe, misfit, no_peer

# So many peers must say that a function would fail anywhere.
VERDICTS_NEEDED = 2
# How long peers that offer something, and give no lease an answer, are tried again before their calls fail. A machine
# that is gone offers nothing after 20 s, and a network that changes is joined anew within that; what still gossips and
# answers nobody stands behind a router, or a firewall.
UNREACHED_US = 30_000_000
# Of so many it is told why.
NAMED_MAX = 3


class GivingUp:
    """`deliver` gives an input its outcome."""

    def __init__(
        self, book: OfferBook, hiring: Hiring, inputs: dict[int, Input], act: Callable[[ev.Action], None],
        deliver: Callable[[Input, ev.Deliver, int], None],
    ) -> None:  # fmt: skip
        self._book, self._hiring, self._inputs, self._act, self._deliver = book, hiring, inputs, act, deliver

    def fail_all(self, function: Function, failure: Failure, now_us: int) -> None:
        """All that waits."""
        if function.keepers:
            self._act(ev.Standing(function.name, failure))
        waiting = [*function.queue, *function.delayed]
        function.queue.clear()
        function.delayed.clear()
        for number in waiting:
            item = self._inputs.get(number)
            if item:
                self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)

    def look(self, function: Function, now_us: int) -> None:
        """Fail what nobody can ever run, once discovery had its chance."""
        self.heed_verdicts(function, now_us)
        if function.too_large and now_us >= function.since_us + NO_PEER_GRACE_US:
            self._look_at_large(function, now_us)
        if function.leases or now_us < function.since_us + NO_PEER_GRACE_US:
            return
        offers = self._hiring.offers(now_us)
        if not self._fitting(function, offers):
            notes = [f"{peer[-8:]} is ignored: {skew_text(skew)}" for peer, skew in self._book.skewed.items()]
            notes += [f"{name} is not used: {why}" for name, why in self._hiring.liars(now_us)]
            failure = Failure.of(no_peer(function.spec, offers, notes, self._hiring.secrets))
            self.fail_all(function, failure, now_us)

    def heed_verdicts(self, function: Function, now_us: int) -> None:
        """Fail what would fail anywhere: when two peers say so, or one and there is nobody else to ask. A single peer
        that lies, or is broken, must not end a call."""
        if not function.verdicts:
            return
        others = [offer for offer in self._hiring.offers(now_us) if offer.peer not in function.verdicts]
        if not self._fitting(function, others) or len(function.verdicts) >= VERDICTS_NEEDED:
            self.fail_all(function, next(iter(function.verdicts.values())), now_us)

    def unreached(self, function: Function, lease: Lease, why: str, now_us: int) -> None:
        """A lease was lost before it was granted: fail what waits once that goes for all who could run it."""
        if any(each.peer == lease.peer and each.slots for each in self._hiring.leases.values()):
            # Another function's workers are there: it is reached, and has too many streams open, or much to do.
            function.unreached.pop(lease.peer, None)
            return
        fitting = self._fitting(function, self._hiring.offers(now_us))
        known = function.unreached | {lease.peer: function.unreached.get(lease.peer, (now_us, why))}
        # Who was away meanwhile begins anew.
        function.unreached = {each.peer: known[each.peer] for each in fitting if each.peer in known}
        if any(self._may_answer(function, each) for each in self._hiring.of(function)):
            return
        if not fitting or len(function.unreached) < len(fitting):
            return
        # The one that was lost last may be starting again.
        if max(since_us for since_us, _ in function.unreached.values()) + UNREACHED_US <= now_us:
            self.fail_all(function, Failure.of(unreachable(function, fitting)), now_us)

    def _look_at_large(self, function: Function, now_us: int) -> None:
        """Fail what gets to nobody: all who could run it are reached through relays, if at all."""
        leases = self._hiring.of(function)
        away = {lease.peer: lease.carries for lease in leases if not lease.takes(function.too_large)}
        fitting = self._fitting(function, self._hiring.offers(now_us))
        if any(offer.peer not in away.keys() | function.unreached.keys() for offer in fitting):
            return
        most = max((carries or 0 for carries in away.values()), default=0)
        large = [each for number in function.queue if len((each := self._inputs[number]).payload) > most]
        function.drop({item.number for item in large})
        function.too_large = 0
        for item in large:
            failure = Failure.of(too_large(function, len(item.payload), most))
            self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)

    def _may_answer(self, function: Function, lease: Lease) -> bool:
        return bool(lease.slots) or lease.peer not in function.unreached

    def _fitting(self, function: Function, offers: list[Offer]) -> list[Offer]:
        return [offer for offer in offers if not misfit(offer, function.spec, self._hiring.secrets)]


def too_large(function: Function, size: int, most: int) -> NoPeerError:
    """The error for an input that no relay carries."""
    return NoPeerError(
        f"An input of {size >> 20} MiB gets to nobody who could run {function.spec.name}.",
        why=f"they are reached through relays alone, which carry {most >> 20} MiB more of inputs and results",
        fix="Send less, or have one of them reached directly: `potluck doctor` there says how.",
    )


def unreachable(function: Function, fitting: list[Offer]) -> NoPeerError:
    """The error that says who could run it, and why they do not."""
    who = f"{len(fitting)} peers have" if len(fitting) != 1 else "1 peer has"
    told = [f"{offer.name}: {function.unreached[offer.peer][1]}" for offer in fitting[:NAMED_MAX]]
    told += [f"{len(fitting) - NAMED_MAX} more"] * (len(fitting) > NAMED_MAX)
    return NoPeerError(
        f"No peer that could run {function.spec.name} can be reached: {who} {describe(function.spec.resources)}.",
        why="; ".join(told),
        fix="Run `potluck doctor` here and on that machine: it says how others reach it. Behind a router it needs an"
        " open port, or a node that both can dial as a relay.",
    )
