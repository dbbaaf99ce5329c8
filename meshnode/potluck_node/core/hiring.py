"""The caller's leases: whom to ask, what to send where, how many workers to want. Part of the call core.

Work is pulled: a lease gets as many inputs as it has slots, plus a few ahead when they are short, so that fast workers
get more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from functools import partial

from potluck.wire.offer import Offer
from potluck_node.core import events as ev
from potluck_node.core.apart import Apart
from potluck_node.core.autoscale import Demand, Place, allot, kept, wanted
from potluck_node.core.bans import Bans
from potluck_node.core.dealing import places, target
from potluck_node.core.demand import Function, Input, Lease, Sent
from potluck_node.core.explain import asking, state, would
from potluck_node.core.homes import Homes
from potluck_node.core.levels import TRUSTED, Standing
from potluck_node.core.offers import OfferBook
from potluck_node.core.placement import Candidate, Dice, choose, misfit, slots
from potluck_node.core.quotas import what_runs
from potluck_node.core.reputation import Reputation
from potluck_node.core.stalls import Stalls
from potluck_node.core.tail import moves
from potluck_node.core.verify import Case

# Offers reach a new node within a gossip round or two; only then does "nobody has it" mean something.
NO_PEER_GRACE_US = 8_000_000
# An idle lease is kept this long, so that calls in a row do not pay for opening one each.
LINGER_US = 2_000_000
# A busy peer is asked again after this long, and so is one that was lost.
BUSY_RETRY_US = 1_000_000
# Who says so often in a row that it is busy, and offers all the while that it is free, refuses: else a peer that lies
# so keeps a call waiting for ever. About a minute; an honest offer is put right within a second or two.
PUT_OFF_MAX = 60
# At most so many leases of one function are being opened at once.
OPENING_MAX = 4
# Who has not answered by then is no longer counted on, and others are asked, too: to find a peer unreachable takes 5 s,
# an answer one round trip, or with a relay's help some.
SLOW_US = 1_000_000
# Functions of which it is remembered who ran them last: a class may have things there that are not in any offer.
RECENT_MAX = 1024


class Hiring:
    """`act` takes an action, `give_up` fails what cannot run; `hedgeable` says whether an input may run twice."""

    def __init__(
        self, book: OfferBook, dice: Dice, own_offer: Callable[[], Offer | None], inputs: dict[int, Input],
        act: Callable[[ev.Action], None], give_up: Callable[[Function, int], None],
        hedgeable: Callable[[int], bool], nobody: Callable[[Case, int], None] = lambda case, now_us: None,
    ) -> None:  # fmt: skip
        self._book, self._dice, self._own_offer, self._inputs = book, dice, own_offer, inputs
        self._act, self._give_up, self._hedgeable = act, give_up, hedgeable
        self.functions: dict[str, Function] = {}
        self.leases: dict[str, Lease] = {}
        self.bans = Bans()
        self.stalls = Stalls()
        self.reputation = Reputation()
        self.apart = Apart(self, inputs, nobody)
        self.homes = Homes()
        self.rtt_us: dict[str, int] = {}
        self._recent: OrderedDict[str, str] = OrderedDict()
        self._looks: dict[str, int] = {}
        self.wake_us: int | None = None
        self.standing: Callable[[str], Standing] = lambda peer: TRUSTED

    def secrets(self, peer: str) -> bool:
        """Whether a peer gets secrets and volumes."""
        return self.standing(peer).secrets

    def of(self, function: Function) -> list[Lease]:
        """The leases of a function."""
        return [self.leases[name] for name in sorted(function.leases)]

    def offers(self, now_us: int) -> list[Offer]:
        """What can be had, our own first."""
        own = self._own_offer()
        return [*([own] if own else []), *self._others(now_us)]

    def _others(self, now_us: int) -> list[Offer]:
        """Those of whom no lie is known that still counts."""
        return [offer for offer in self._book.fresh(now_us) if not self.reputation.banned(offer.peer, now_us)]

    def liars(self, now_us: int) -> list[tuple[str, str]]:
        """The names of the others, and why nothing is sent to them."""
        found = [(offer.name, self.reputation.banned(offer.peer, now_us)) for offer in self._book.fresh(now_us)]
        return [(name, why) for name, why in found if why]

    def offer(self, peer: str) -> Offer | None:
        """What a peer last offered."""
        return self._own_offer() if peer == self._book.us else self._book.offers.get(peer)

    def model(self, lease: Lease) -> str:
        """The GPU model on which a lease runs, as its peer last offered; empty without one."""
        offer = self.offer(lease.peer)
        function = self.functions.get(lease.function)
        return what_runs(function.spec, offer.gpus).model if offer and function else ""

    def stats(self, function: Function) -> tuple[int, int]:
        """(inputs that wait for a worker, workers that run or are held up)."""
        leases = self.of(function)
        began = [sum(bool(sent.began_us) for sent in lease.inputs.values()) for lease in leases]
        waiting = len(function.queue) + sum(len(lease.inputs) for lease in leases) - sum(began)
        runners = [max(lease.least, -(-count // lease.places)) for lease, count in zip(leases, began, strict=True)]
        return waiting, sum(runners)

    def is_refusal(self, function: Function, peer: str, reason: str) -> bool:
        """Whether a peer that gave no lease for this reason means more than the moment."""
        if reason != "busy":
            return reason not in ("paused", "function")
        offer = self.offer(peer)
        if offer is None or not slots(offer, function.spec.resources):
            function.put_off_by.pop(peer, None)
            return False
        times = function.put_off_by[peer] = function.put_off_by.get(peer, 0) + 1
        return times > PUT_OFF_MAX

    def drop(self, name: str) -> Function:
        """A lease is over."""
        lease = self.leases.pop(name)
        function = self.functions[lease.function]
        function.leases.discard(name)
        return function

    def worked(self, lease: Lease) -> None:
        """A lease did what it should: its peer is a good choice the next time."""
        self.bans.forgive(lease.peer)
        self._recent[lease.function] = lease.peer
        self._recent.move_to_end(lease.function)
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)

    def watch(self, peer: str) -> None:
        """Give a peer one input at a time while there is doubt whether it answers."""
        doubtful = self.stalls.is_doubtful(peer)
        for lease in self.leases.values():
            if lease.peer == peer:
                lease.doubtful = doubtful

    def strike(self, peer: str, now_us: int, least_us: int = 0) -> int:
        """A peer failed; returns for how long it is avoided."""
        return self.bans.strike(peer, now_us, least_us)

    # All that follows from any event

    def pump_all(self, now_us: int) -> None:
        for function in list(self.functions.values()):
            self.pump(function, now_us)

    def pump(self, function: Function, now_us: int) -> None:
        """Send what can be sent, ask for more leases where that is not enough, end idle ones, say what is awaited."""
        due = [number for number in function.delayed if self._inputs[number].not_before_us <= now_us]
        if due:
            function.delayed = [number for number in function.delayed if number not in due]
            function.queue.extend(due)
        self._scale(function, now_us)
        waiting = len(function.queue)
        self._assign(function, now_us)
        if len(function.queue) != waiting:
            self._scale(function, now_us)
        if function.queue or function.keepers:
            self._grow(function, now_us)
        self._tail(function, now_us)
        self._shrink(function, now_us)
        self._note(function, now_us)
        self._plan_wake(now_us)

    def _assign(self, function: Function, now_us: int) -> None:
        if function.cases:
            self.apart.assign(function, now_us)
            return
        held = self._assign_home(function, now_us) if function.spec.web else []
        leases = [(name, self.leases[name]) for name in sorted(function.leases) if self.leases[name].slots]
        function.too_large = 0
        if any(lease.carries is not None for _, lease in leases):
            held += self._hold_large(function, [lease for _, lease in leases])
        while function.queue and leases:
            name, lease = min(leases, key=lambda each: len(each[1].inputs) / each[1].slots)
            if lease.room() <= 0:
                leases = [each for each in leases if each[1].room() > 0]
                continue
            number = self._taken_first(function, lease)
            if number:
                self.send(name, number, now_us)
            else:
                leases = [each for each in leases if each[1] is not lease]
        function.queue.extendleft(reversed(held))

    def _hold_large(self, function: Function, leases: list[Lease]) -> list[int]:
        """Take from the queue what gets to none of these."""
        sizes = {number: len(self._inputs[number].payload) for number in function.queue}
        held = [number for number, size in sizes.items() if not any(lease.takes(size) for lease in leases)]
        if held:
            function.drop(set(held))
            function.too_large = max(sizes[number] for number in held)
        return held

    def _taken_first(self, function: Function, lease: Lease) -> int:
        """Take the first input that gets to a lease from the queue; 0 if none does."""
        if lease.carries is None:
            return function.queue.popleft()
        fitting = (number for number in function.queue if lease.takes(len(self._inputs[number].payload)))
        if number := next(fitting, 0):
            function.queue.remove(number)
        return number

    def _assign_home(self, function: Function, now_us: int) -> list[int]:
        """Send what wants a worker to that one's peer; returns what has to wait for it, which is no longer queued."""
        homed = [number for number in function.queue if self._inputs[number].worker]
        held: list[int] = []
        for number in homed:
            item = self._inputs[number]
            name = self._home_lease(function, item, now_us)
            if name and self.leases[name].room() > 0:
                function.queue.remove(number)
                self.send(name, number, now_us, item.worker)
            elif name:
                function.queue.remove(number)
                held.append(number)
            else:
                item.worker = ""
        return held

    def _home_lease(self, function: Function, item: Input, now_us: int) -> str:
        """The lease with the peer of the worker that an input wants, opened if need be; "" when there can be none."""
        home = self.homes.of(item.worker)
        found = [name for name in sorted(function.leases) if self.leases[name].peer == home]
        if home and not found:
            candidates = [each for each in self._candidates(function, now_us) if each.offer.peer == home]
            for each in candidates[: not self.bans.left_us(home, now_us)]:
                self._open(function, each.offer, now_us)
                return self._home_lease(function, item, now_us)
        return found[0] if found else ""

    def send(self, name: str, number: int, now_us: int, worker: str = "") -> None:
        """Send an input by a lease, for one of its workers if that is named."""
        item = self._inputs[number]
        item.attempt += 1
        self.leases[name].inputs[number] = Sent(item.attempt, now_us, budgets=item.budgets)
        if item.case:
            self.apart.sent(item.case, self.leases[name])
        plain = not self.standing(self.leases[name].peer).code
        self._act(ev.SendInput(name, number, item.attempt, item.payload, plain, worker))

    # How many

    def demand(self, function: Function, now_us: int) -> Demand:
        """The figures by which the number of workers is chosen."""
        leases = self.of(function)
        return Demand(
            queued=len(function.queue),
            running=sum(len(lease.inputs) for lease in leases),
            run_us=function.mean_us,
            start_us=function.start_us,
            gap_us=function.gap_us,
            per_worker=target(function.spec) * max(1, function.spec.sharing.batch_size),
            up=sum(lease.workers for lease in leases),
            stalled_us=now_us - function.progress_us if function.queue else 0,
        )

    def _scale(self, function: Function, now_us: int) -> None:
        """Tell the leases how many workers they should have, where the caller cares."""
        scaling, leases = function.scaling, self.of(function)
        asked = scaling.min_containers or scaling.max_containers or scaling.buffer_containers
        if not asked and not any(lease.least or lease.most for lease in leases):
            return
        # Of a function that is only bounded, nothing is held up.
        wants = bool(scaling.min_containers or scaling.buffer_containers) and bool(function.calls or function.keepers)
        held = self._spread(function, kept(self.demand(function, now_us), scaling) if wants else 0)
        most = self._spread(function, scaling.max_containers)
        for name, least in held.items():
            lease = self.leases[name]
            if scaling.max_containers and not most[name] and not lease.inputs:
                self.drop(name)
                self._act(ev.EndLease(name, "enough others"))
            elif (lease.least, lease.most) != (least, most[name]):
                lease.least, lease.most = least, most[name]
                self._act(ev.ScaleLease(name, least, most[name]))

    def _spread(self, function: Function, workers: int) -> dict[str, int]:
        granted = [(name, self.leases[name]) for name in sorted(function.leases) if self.leases[name].slots]
        if len(granted) == 1:
            return {name: min(lease.workers, workers) for name, lease in granted}
        return allot(workers, [self._place(name, lease) for name, lease in granted])

    def _place(self, name: str, lease: Lease) -> Place:
        has = max(lease.least, -(-len(lease.inputs) // lease.places))
        return Place(name, lease.workers, has, self.rtt_us.get(lease.peer, 0))

    def _grow(self, function: Function, now_us: int) -> None:
        """Ask further peers until what is coming is enough for what waits."""
        if function.cases and function.queue:
            cases, every = self.apart.blocked(function)
            if cases:
                self._grow_apart(function, cases, now_us)
            if every and function.leases:
                # More of the same would not help.
                return
        while self._short(function, now_us):
            avoided = self._avoided(function, now_us, lambda peer: True)
            candidates = [each for each in self._candidates(function, now_us) if each.offer.peer not in avoided]
            chosen = choose(candidates, function.name, function.spec, self._dice, self.secrets)
            if chosen is None:
                break
            self._open(function, chosen.offer, now_us)
        else:
            return
        self._give_up(function, now_us)

    def _grow_apart(self, function: Function, cases: list[Case], now_us: int) -> None:
        """Ask a peer that has not had an input yet."""
        candidates = self._candidates(function, now_us)
        for case in cases if candidates else ():
            avoided = self._avoided(function, now_us, partial(self.apart.may_peer, case))
            fitting = self.apart.fitting(case, [each for each in candidates if each.offer.peer not in avoided])
            chosen = choose(fitting, function.name, function.spec, self._dice, self.secrets)
            if chosen:
                self._open(function, chosen.offer, now_us)
                return
        self.apart.look(function, cases, now_us)

    def _short(self, function: Function, now_us: int) -> bool:
        leases = [self.leases[name] for name in function.leases]
        opening = [lease for lease in leases if not lease.slots]
        if len(opening) >= OPENING_MAX:
            return False
        coming = sum(lease.expected for lease in opening if now_us < lease.opened_us + SLOW_US)
        if function.queue and coming * places(function.spec) >= len(function.queue):
            return False
        up = sum(lease.workers for lease in leases if lease.takes(function.too_large))
        return wanted(self.demand(function, now_us), function.scaling) > up + coming

    def _open(self, function: Function, offer: Offer, now_us: int) -> None:
        name = f"{self._book.us[-8:]}-{now_us:x}-{self._dice.randrange(1 << 32):08x}"
        free = max(1, slots(offer, function.spec.resources))
        self.leases[name] = Lease(
            offer.peer, function.name, places(function.spec), expected=free, idle_us=now_us, opened_us=now_us,
            stage=asking(function, offer),
        )  # fmt: skip
        function.leases.add(name)
        self._act(ev.OpenLease(name, offer.peer, function.spec, len(function.queue)))

    def _candidates(self, function: Function, now_us: int) -> list[Candidate]:
        """Peers that may be asked now: no lease with them yet, and not told to wait."""
        leased = {self.leases[name].peer for name in function.leases}
        # Ours is made anew each time, and inputs come often.
        offers = self._others(now_us) if self._book.us in leased else self.offers(now_us)
        recent = (self._recent.get(function.name), *self.stalls.answered_by(function.name))
        return [
            Candidate(
                offer,
                self.rtt_us.get(offer.peer, 0),
                self.bans.left_us(offer.peer, now_us) > 0 or self.stalls.is_doubtful(offer.peer),
                offer.peer in recent,
                self._doubt(offer.peer, now_us),
            )
            for offer in offers
            if offer.peer not in leased
            and offer.peer not in function.verdicts
            and function.not_before.get(offer.peer, (0, ""))[0] <= now_us
        ]

    def _avoided(self, function: Function, now_us: int, may: Callable[[str], bool]) -> set[str]:
        """Who is left alone since inputs run out of time there, as long as there is somebody else who may have what
        waits."""
        if not self.stalls.doubts:
            return set()
        offers = [offer for offer in self.offers(now_us) if may(offer.peer)]
        found = {
            offer.peer
            for offer in offers
            if self.stalls.avoids(function.name, offer.peer) and self.bans.left_us(offer.peer, now_us)
        }
        others = (offer for offer in offers if offer.peer not in found)
        return found if found and any(not misfit(each, function.spec, self.secrets) for each in others) else set()

    def _doubt(self, peer: str, now_us: int) -> int:
        """Who may run code here is known for good by the owner's word."""
        doubt = self.reputation.doubt(peer, now_us)
        return 0 if doubt == 1 and self.standing(peer).code else doubt

    # The end of it

    def _tail(self, function: Function, now_us: int) -> None:
        self._looks.pop(function.name, None)
        if function.queue or len(function.leases) < 2:
            return
        found, look_us = moves(function, self.leases, now_us, self._movable(function), self._hedgeable, self.apart.may)
        for move in found:
            if move.drop:
                self.leases[move.drop].inputs.pop(move.input)
                self._act(ev.AbortInput(move.drop, move.input, "another worker is free"))
            self.send(move.to, move.input, now_us)
        if look_us is not None:
            self._looks[function.name] = look_us

    def _movable(self, function: Function) -> Container[int]:
        """Inputs that may go elsewhere: none that waits for its worker."""
        if not function.spec.web:
            return self._inputs
        sent = (number for lease in self.of(function) for number in lease.inputs if number in self._inputs)
        return {number for number in sent if not self._inputs[number].worker}

    def _shrink(self, function: Function, now_us: int) -> None:
        wants = bool(function.calls or function.keepers)
        for name in sorted(function.leases):
            lease = self.leases[name]
            unwanted = not lease.slots and not wants
            if unwanted or (self._unused(function, lease) and now_us >= lease.idle_us + LINGER_US):
                self.drop(name)
                self._act(ev.EndLease(name, "done"))
        if not wants and not function.leases:
            self.functions.pop(function.name, None)
            self._looks.pop(function.name, None)

    def _unused(self, function: Function, lease: Lease) -> bool:
        """Whether a lease does nothing, and is not to take over from others at the end of a map either."""
        idle = bool(lease.slots and not lease.inputs and not function.queue and not function.delayed)
        return idle and not (lease.least and (function.calls or function.keepers)) and not self._helps(function)

    def _helps(self, function: Function) -> bool:
        return any(self._hedgeable(number) for lease in self.of(function) for number in lease.inputs)

    # Words and time

    def would(self, function: Function, now_us: int) -> tuple[str, ...]:
        """A line for each peer: why it runs the function, or does not."""
        known = would(function, self.leases, self.offers(now_us), self.bans, self.rtt_us, now_us, self.secrets)
        return (*known, *(f"{name}: {why}" for name, why in self.liars(now_us)))

    def _note(self, function: Function, now_us: int) -> None:
        note = state(function, self.of(function), lambda: self.offers(now_us), self.secrets)
        if note[1] and (cost := function.replicas.text()):
            note = note[0], f"{note[1]}; {cost}"
        if note != function.note:
            function.note = note
            for call in sorted(function.calls):
                self._act(ev.Notice(call, *note))

    def note(self, function: Function, now_us: int) -> None:
        """Say anew what is awaited, if that has changed."""
        self._note(function, now_us)

    def _plan_wake(self, now_us: int) -> None:
        times = [time for function in self.functions.values() for time in self._times(function, now_us)]
        self.wake_us = max(now_us + 1000, min(times)) if times else None

    def _times(self, function: Function, now_us: int) -> Iterator[int]:
        yield from (self._inputs[number].not_before_us for number in function.delayed)
        yield from (lease.idle_us + LINGER_US for lease in self.of(function) if self._unused(function, lease))
        if function.name in self._looks:
            yield self._looks[function.name]
        if function.queue or (function.keepers and self._short(function, now_us)):
            yield from (time for time, _ in function.not_before.values() if time > now_us)
            slow = (lease.opened_us + SLOW_US for lease in self.of(function) if not lease.slots)
            yield from (time for time in slow if time > now_us)
            yield max(now_us + BUSY_RETRY_US, function.since_us + NO_PEER_GRACE_US)
