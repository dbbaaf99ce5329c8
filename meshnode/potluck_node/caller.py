"""The caller's side of leases: runs the call core, opens leases, and checks and countersigns receipts."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import trio

from potluck import __version__, wire
from potluck.errors import Error, RefusedError, RemoteProtocolError
from potluck.wire import PROTOCOL, Failure
from potluck.wire import lease as messages
from potluck.wire.common import Limit
from potluck.wire.nested import CALLS
from potluck.wire.offer import Offer
from potluck.wire.state import StateAsked, StateDropped, StateTold
from potluck.wire.verify import EvidenceFacts, Verification
from potluck.wire.worker import TROUBLE_MAX
from potluck_ledger.journal import Journal, Problem
from potluck_ledger.keys import PrivateKey
from potluck_node.books import CallerBooks, at_once
from potluck_node.clock import Clock
from potluck_node.core import events as ev
from potluck_node.core.calls import CallCore
from potluck_node.core.levels import TRUSTED, Standing
from potluck_node.core.offers import OfferBook
from potluck_node.engine import Engine
from potluck_node.lease_secrets import sealed_for
from potluck_node.link import Link, LocalLink, StreamLink
from potluck_node.nested import Nested, NestedDesk
from potluck_node.state.service import Desk, State
from potluck_node.state.work import Asker
from potluck_node.transport.interface import Transport, TransportError

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.caller")

LEASE_PROTOCOL = "/potluck/lease/1"

# A provider that accepted the stream answers within a round trip; ten seconds is a machine that is swapping.
GRANT_TIMEOUT_S = 10.0
# After closing, how long the provider may take to send its receipt.
RECEIPT_TIMEOUT_S = 5.0
# Of what a relay carries so much is for all that is said beside an input: heartbeats, logs, a short result.
SAID_BYTES = 1 << 20
# What could not be written, for want of room on the disk most likely, is tried again after this.
KEEP_AGAIN_S = 30.0


FromClients = (
    ev.InputAdded
    | ev.ItemsTaken
    | ev.PieceAdded
    | ev.InputsEnded
    | ev.CallCancelled
    | ev.OffersChanged
    | ev.FunctionKept
    | ev.FunctionLeft
    | ev.ScalingSet
    | ev.ResultsJudged
)


class CallSink(Protocol):
    """Whoever placed a call."""

    def deliver(self, action: ev.Deliver) -> None: ...
    def item(self, action: ev.DeliverItem) -> None: ...
    def began(self, action: ev.Began) -> None: ...
    def taken(self, action: ev.DeliverTaken) -> None: ...
    def ended(self, action: ev.CallEnded) -> None: ...
    def notice(self, action: ev.Notice) -> None: ...
    def log(self, call: str, index: int, message: messages.InputLog) -> None: ...
    async def drained(self) -> None: ...


@runtime_checkable
class Judge(Protocol):
    """A sink whose program compares results."""

    def judge(self, action: ev.AskJudge) -> None: ...


@dataclass
class _Lease:
    action: ev.OpenLease
    books: CallerBooks
    link: Link | None = None
    answered: trio.Event = field(default_factory=trio.Event)
    settled: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)
    closing: bool = False
    asked_us: int = 0
    # Where its workers ask for shared state, and for calls.
    desk: Desk | None = None
    calls: NestedDesk | None = None
    # Whether it is with ourselves: nobody bills themselves.
    ours: bool = False


class Caller:
    """`open_local` joins a lease with this node's own provider; None when it offers nothing."""

    def __init__(
        self, transport: Transport, key: PrivateKey, book: OfferBook, journal: Journal, clock: Clock,
        standing: Callable[[str], Standing] = lambda peer: TRUSTED,
    ) -> None:  # fmt: skip
        self._transport, self._key, self._book, self._journal, self._clock = transport, key, book, journal, clock
        # How what is signed is kept: one by one, unless the node knows better.
        self.keep = at_once(journal)
        self.own_offer: Callable[[], Offer | None] = lambda: None
        self.open_local: Callable[[str], LocalLink] | None = None
        self._standing = standing
        self.on_judged: Callable[[EvidenceFacts], None] = lambda evidence: None
        self.on_billed: Callable[[str, bool], None] = lambda peer, honest: None
        self.state: State | None = None
        self.nested: Nested | None = None
        self.on_standing: Callable[[ev.Standing], None] = lambda standing: None
        self.core = CallCore(book, random.SystemRandom(), lambda: self.own_offer(), standing)
        self._engine = Engine[ev.Event, ev.Action](self.core, self._do, ev.Tick(), clock)
        self._sinks: dict[str, CallSink] = {}
        self._leases: dict[str, _Lease] = {}
        self._nursery: trio.Nursery | None = None

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run leases until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._nursery.start(self._engine.serve)
                task_status.started()
        finally:
            self._nursery = None

    def open(
        self, call: str, function: wire.FunctionSpec, sink: CallSink, limit: Limit | None = None,
        asked: tuple[str, int] | None = None, verify: Verification | None = None,
        spent: tuple[int, int] = (0, 0), under: tuple[tuple[Limit, int, int], ...] = (),
    ) -> None:  # fmt: skip
        """Begin a call; outcomes go to `sink`. The rest as in `ev.CallOpened`. Only those of a `Judge` may have results
        compared by their program."""
        self._sinks[call] = sink
        self._engine.submit(ev.CallOpened(call, function, limit, asked, verify, spent, under))

    def submit(self, event: FromClients) -> None:
        self._engine.submit(event)
        if isinstance(event, ev.CallCancelled):
            self._sinks.pop(event.call, None)

    def runs(self, lease: str, number: int) -> tuple[str, int] | None:
        """(call, index) of an input that a lease has."""
        return self.core.input_of(number) if self.core.runs(lease, number) else None

    def show(self, call: str, index: int, message: messages.InputLog) -> None:
        """Give a call's sink what was printed on its behalf."""
        if call in self._sinks:
            self._sinks[call].log(call, index, message)

    def start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run something as long as this is served."""
        assert self._nursery
        self._nursery.start_soon(task, *args)

    def running(self, app: str) -> list[wire.FunctionSpec]:
        """Functions of an app that have workers for us."""
        return self.core.running(app)

    def warm(self) -> set[str]:
        """Ids of functions that have workers standing by, anywhere."""
        own = self.own_offer()
        offers = [*([own] if own else []), *self._book.fresh(self._clock.now_us())]
        return {each for offer in offers for each in offer.warm}

    async def drain(self, reason: str) -> None:
        """Close every lease and wait for the receipts."""
        for lease in list(self._leases):
            self._engine.submit(ev.LeaseDenied(lease, "paused", Failure.of(Error(reason)), retry_after_us=1 << 40))
            self._close(ev.EndLease(lease, reason))
        for held in list(self._leases.values()):
            await held.gone.wait()

    # Actions

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.SendInput):
            lease = self._leases.get(action.lease)
            if lease and lease.link:
                if not lease.ours:
                    lease.books.meter.sent(action.input, action.attempt, action.payload, self._clock.now_us())
                call, index = self.core.place_of(action.input)
                given = (action.input, action.attempt, action.payload, action.plain, call, index, action.worker)
                lease.link.post(messages.Input(*given))
        elif isinstance(action, ev.Deliver):
            if action.call in self._sinks:
                self._sinks[action.call].deliver(action)
        elif isinstance(action, ev.CallEnded):
            sink = self._sinks.pop(action.call, None)
            if sink:
                sink.ended(action)
        elif isinstance(action, ev.Notice):
            if action.call in self._sinks:
                self._sinks[action.call].notice(action)
        elif isinstance(action, ev.OpenLease):
            self._open(action)
        elif isinstance(action, ev.AskJudge):
            if isinstance(sink := self._sinks.get(action.call), Judge):
                sink.judge(action)
        elif isinstance(action, ev.Judged):
            self.on_judged(action.evidence)
        elif isinstance(action, ev.DeliverItem):
            if action.call in self._sinks:
                self._sinks[action.call].item(action)
        elif isinstance(action, ev.Began):
            if action.call in self._sinks:
                self._sinks[action.call].began(action)
        elif isinstance(action, ev.DeliverTaken):
            if action.call in self._sinks:
                self._sinks[action.call].taken(action)
        elif isinstance(action, ev.SendPiece):
            self._post(action.lease, messages.InputPiece(action.input, action.payload))
        elif isinstance(action, ev.AckItems):
            self._post(action.lease, messages.ItemsTaken(action.input, action.items))
        elif isinstance(action, ev.Standing):
            self.on_standing(action)
        elif isinstance(action, ev.ScaleLease):
            self._post(action.lease, messages.ScaleWorkers(action.least, action.most))
        elif isinstance(action, ev.AbortInput):
            self._input_over(action.lease, action.input)
            self._post(action.lease, messages.CancelInput(action.input, action.reason))
        else:
            self._close(action)

    def _input_over(self, lease: str, number: int) -> None:
        """What it has called ends, too."""
        held = self._leases.get(lease)
        if held and held.calls:
            held.calls.input_over(number)

    def _post(self, lease: str, message: wire.Message) -> None:
        held = self._leases.get(lease)
        if held and held.link:
            held.link.post(message)

    def _open(self, action: ev.OpenLease) -> None:
        books = CallerBooks(self._key, self._journal, self.keep, action.lease, action.peer, action.function)
        lease = _Lease(action, books, ours=action.peer == self._key.peer)
        self._leases[action.lease] = lease
        assert self._nursery, "the caller is not being served"
        if action.peer == self._key.peer:
            self._open_here(lease)
        else:
            self._nursery.start_soon(self._converse, lease)

    def _open_here(self, lease: _Lease) -> None:
        assert self.open_local
        link = self.open_local(lease.action.lease)
        link.on_message = lambda message: self._take(lease, message)
        link.ready = self._ready
        lease.link = link
        link.post(self._request(lease))

    def _request(self, lease: _Lease) -> messages.LeaseRequest:
        action = lease.action
        lease.asked_us = now_us = self._clock.now_us()
        function, sealed = sealed_for(action.peer, action.lease, action.function)
        return messages.LeaseRequest(
            PROTOCOL, action.lease, function, action.inputs_waiting, now_us, __version__, sealed
        )

    async def _converse(self, lease: _Lease) -> None:
        try:
            stream = await self._transport.open(lease.action.peer, LEASE_PROTOCOL)
        except TransportError as error:
            self._forget(lease, str(error))
            return
        if lease.closing:
            await stream.aclose()
            self._forget(lease, "no longer needed")
            return
        link = StreamLink(
            stream, messages.ToCaller, lambda message: self._take(lease, message), self._clock, self._ready
        )
        lease.link = link
        link.post(self._request(lease))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expect_answer, lease, link)
            why = await link.run()
            nursery.cancel_scope.cancel()
        log.debug("lease %s ended: %s", lease.action.lease, why)
        silent = "" if lease.answered.is_set() else f"{self._who(lease)} did not answer within {GRANT_TIMEOUT_S:g} s"
        self._forget(lease, why or silent or f"{self._who(lease)} closed the lease")

    async def _expect_answer(self, lease: _Lease, link: StreamLink) -> None:
        with trio.move_on_after(GRANT_TIMEOUT_S):
            await lease.answered.wait()
            return
        log.warning("%s did not answer a lease request within %g s", self._who(lease), GRANT_TIMEOUT_S)
        link.finish()

    async def _ready(self) -> None:
        for sink in list(self._sinks.values()):
            await sink.drained()

    def _who(self, lease: _Lease) -> str:
        offer = self._book.offers.get(lease.action.peer)
        return offer.name if offer else lease.action.peer[-8:]

    def _forget(self, lease: _Lease, why: str) -> None:
        if self._leases.pop(lease.action.lease, None):
            self._end(lease)
            lease.settled.set()
            self._engine.submit(ev.LeaseLost(lease.action.lease, why))

    def _close(self, action: ev.EndLease) -> None:
        lease = self._leases.get(action.lease)
        if lease is None or lease.closing:
            return
        lease.closing = True
        if lease.link is None:
            return
        lease.link.post(messages.CloseLease(action.reason))
        if lease.action.peer == self._key.peer:
            # Nobody bills themselves: there is no receipt to wait for.
            lease.settled.set()
        assert self._nursery
        self._nursery.start_soon(self._settle, lease)

    async def _settle(self, lease: _Lease) -> None:
        """Give the provider time for its receipt, then end the stream."""
        with trio.move_on_after(RECEIPT_TIMEOUT_S):
            await lease.settled.wait()
        if lease.link:
            lease.link.finish()
        self._leases.pop(lease.action.lease, None)
        self._end(lease)

    def _end(self, lease: _Lease) -> None:
        if lease.desk:
            lease.desk.close()
        if lease.calls:
            lease.calls.close()
        self._book_end(lease, self._clock.now_us())

    def _book_end(self, lease: _Lease, ended_us: int) -> None:
        """Until it is on disk: what was signed would not be in our own account else, before the next start."""

        def kept(problem: Problem) -> None:
            lease.gone.set()
            if problem:
                log.error("a voucher is not in the journal: %s", problem)
            # The next start does it where this node is ending.
            if problem and self._nursery:
                self._nursery.start_soon(self._book_later, lease, ended_us)

        lease.books.over(ended_us, kept)

    async def _book_later(self, lease: _Lease, ended_us: int) -> None:
        await trio.sleep(KEEP_AGAIN_S)
        self._book_end(lease, ended_us)

    # Messages

    def _take(self, lease: _Lease, message: object) -> None:
        name = lease.action.lease
        if isinstance(message, messages.InputDone):
            if not lease.ours:
                lease.books.meter.came(message, self._clock.now_us())
            self._input_over(name, message.input)
            self._engine.submit(ev.InputFinished(name, message))
        elif isinstance(message, messages.InputItem):
            if not lease.ours:
                lease.books.meter.meter.add_item(message)
            self._engine.submit(ev.ItemYielded(name, message))
        elif isinstance(message, messages.PiecesTaken):
            self._engine.submit(ev.PiecesTaken(name, message.input, message.bytes))
        elif isinstance(message, messages.InputLog):
            self._log(message)
        elif isinstance(message, messages.InputStarted):
            lease.books.meter.began(message.input, message.attempt)
            self._engine.submit(ev.InputBegan(name, message.input, message.worker))
        elif isinstance(message, messages.LeaseGranted):
            lease.answered.set()
            # A grant comes back at once, so it took one round trip.
            self.core.heard(lease.action.peer, self._clock.now_us() - lease.asked_us)
            self._engine.submit(ev.LeaseAccepted(name, message.slots, self._carries(lease)))
        elif isinstance(message, messages.LeaseProgress):
            self._engine.submit(ev.LeaseStage(name, _stage(self._who(lease), message)))
        elif isinstance(message, StateAsked):
            self._asked(lease, message)
        elif isinstance(message, StateDropped):
            self._desk(lease).leave(message.number)
            if lease.calls:
                lease.calls.leave(message.number)
        elif isinstance(message, messages.LeaseReady):
            self._engine.submit(ev.LeaseWarm(name, message.trouble[:TROUBLE_MAX]))
        elif isinstance(message, messages.ReceiptOffered):
            self._receipt(lease, message.envelope)
        elif isinstance(message, messages.VoucherOffered):
            self._voucher(lease, message.envelope)
        else:
            self._ended_by_provider(lease, message)

    def _carries(self, lease: _Lease) -> int | None:
        """Bytes of the largest input that gets there; None for any."""
        left = None if lease.ours else self._transport.carries(lease.action.peer, LEASE_PROTOCOL)
        return left if left is None else max(0, left - SAID_BYTES)

    def _ended_by_provider(self, lease: _Lease, message: object) -> None:
        lease.answered.set()
        if isinstance(message, messages.LeaseRefused):
            failure, reason, wait_us = message.failure, message.reason, message.retry_after_us
        else:
            assert isinstance(message, messages.CloseLease)
            failure = Failure.of(Error(f"{self._who(lease)} ended the lease.", why=message.reason))
            reason, wait_us = "busy", 0
        if not lease.closing:
            lease.closing = True
            self._engine.submit(ev.LeaseDenied(lease.action.lease, reason, failure, wait_us))
            if self._nursery:
                self._nursery.start_soon(self._settle, lease)

    def _asked(self, lease: _Lease, message: StateAsked) -> None:
        if not message.about:
            self._desk(lease).ask(message.number, message.payload)
        elif message.about == CALLS and self.nested:
            if lease.calls is None:
                name, spec = lease.action.lease, lease.action.function

                def tell(number: int, payload: bytes, failure: Failure | None) -> None:
                    self._post(name, StateTold(number, payload, failure))

                lease.calls = self.nested.desk(name, spec, self._standing(lease.action.peer).secrets, tell)
            lease.calls.ask(message.number, message.input, message.payload)
        else:
            failure = Failure.of(RefusedError("The caller's node does not answer this.", fix="Upgrade it."))
            self._post(lease.action.lease, StateTold(message.number, failure=failure))

    def _desk(self, lease: _Lease) -> Desk:
        """Where its workers ask for shared state, with the rights of their app on that peer."""
        if lease.desk is None:
            assert self.state
            name, spec = lease.action.lease, lease.action.function
            peer = lease.action.peer
            asker = Asker(f"lease {name}", spec.app, self._standing(peer).secrets, peer)

            async def ready() -> None:
                if lease.link:
                    await lease.link.drained()

            def tell(number: int, payload: bytes, failure: Failure | None) -> None:
                self._post(name, StateTold(number, payload, failure))

            lease.desk = self.state.desk(asker, tell, ready)
        return lease.desk

    def _log(self, message: messages.InputLog) -> None:
        found = self.core.shown_of(message.input)
        if found and found[0] in self._sinks:
            self._sinks[found[0]].log(*found, message)

    def _voucher(self, lease: _Lease, data: bytes) -> None:
        def answer(signed: bytes, why: str) -> None:
            if why:
                log.warning("not signing a voucher of %s: %s", self._who(lease), why)
            self._post(lease.action.lease, messages.VoucherSigned(signed, why))

        lease.books.voucher(data, self._clock.now_us(), answer)

    def _receipt(self, lease: _Lease, data: bytes) -> None:
        def answer(signed: bytes, why: str) -> None:
            if why:
                log.warning("not signing the receipt of %s: %s", self._who(lease), why)
            if lease.books.overbilled or (signed and self.core.speaks_for(lease.action.peer)):
                self.on_billed(lease.action.peer, not lease.books.overbilled)
            self._post(lease.action.lease, messages.ReceiptSigned(signed, why))
            lease.settled.set()

        lease.books.receipt(data, self._clock.now_us(), answer)


def _stage(who: str, message: messages.LeaseProgress) -> str:
    texts = {"image": "fetching the image", "sandbox": "starting a sandbox", "import": "importing"}
    if message.stage not in texts:
        raise RemoteProtocolError(f"{who} reports an unknown stage.")
    text = f"{who} is {texts[message.stage]}"
    if message.total:
        text += f" ({message.done / 1e6:.0f} of {message.total / 1e6:.0f} MB)"
    return text
