"""The caller's side of leases in a simulated node: does with the call core's actions what `caller.py` does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from potluck.errors import Error
from potluck.wire import Failure, FunctionSpec, Message
from potluck.wire import lease as messages
from potluck.wire.verify import Verification
from potluck_ledger.entries import read_receipt, read_voucher
from potluck_ledger.journal import Problem
from potluck_netsim.driver import Driver
from potluck_netsim.facts import (
    CallDropped,
    CallOver,
    CallPlaced,
    Delivered,
    InputGiven,
    LeaseWanted,
    ReceiptChecked,
    Seen,
    VoucherChecked,
)  # fmt: skip
from potluck_netsim.interface import Link, SimNode
from potluck_netsim.network import End
from potluck_node.books import CallerBooks
from potluck_node.caller import GRANT_TIMEOUT_S, KEEP_AGAIN_S, RECEIPT_TIMEOUT_S
from potluck_node.core import events as ev
from potluck_node.core.calls import CallCore

GRANT_TIMEOUT_US, RECEIPT_TIMEOUT_US = int(GRANT_TIMEOUT_S * 1e6), int(RECEIPT_TIMEOUT_S * 1e6)
KEEP_AGAIN_US = int(KEEP_AGAIN_S * 1e6)


@dataclass(eq=False)
class Lease:
    action: ev.OpenLease
    books: CallerBooks
    link: Link | None = None
    answered: bool = False
    closing: bool = False


class SimCaller:
    """`calls` are those placed here and not over yet."""

    def __init__(self, node: SimNode) -> None:
        self._node, self._world = node, node.world
        self.core = self._make_core()
        self._driver = Driver[ev.Event, ev.Action](node, "calls", self.core, self._do, ev.Tick())
        self.leases: dict[str, Lease] = {}
        self.calls: dict[str, None] = {}

    def _make_core(self) -> CallCore:
        return CallCore(self._node.book, self._world.dice, self._node.make_offer)

    # Whoever places calls

    def open(self, call: str, function: FunctionSpec, verify: Verification | None = None) -> None:
        self.calls[call] = None
        self._world.fact(CallPlaced(self._node.name, call))
        self._node.listen()
        self.submit(ev.CallOpened(call, function, verify=verify))

    def give(self, call: str, index: int, payload: bytes) -> None:
        self._world.fact(InputGiven(self._node.name, call, index, payload))
        self.submit(ev.InputAdded(call, index, payload))

    def end(self, call: str) -> None:
        """No more inputs come."""
        if call in self.calls:
            self.submit(ev.InputsEnded(call))

    def cancel(self, call: str, reason: str) -> None:
        if call in self.calls:
            del self.calls[call]
            self._world.fact(CallDropped(self._node.name, call))
            self.submit(ev.CallCancelled(call, reason))

    def submit(self, event: ev.Event) -> None:
        self._driver.submit(event)

    # Actions

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.SendInput):
            self._send(action)
        elif isinstance(action, ev.Deliver):
            outcome = (action.payload, action.exception, action.failure)
            self._world.fact(Delivered(self._node.name, action.call, action.index, *outcome))
        elif isinstance(action, ev.CallEnded):
            self.calls.pop(action.call, None)
            self._world.fact(CallOver(self._node.name, action.call))
        elif isinstance(action, ev.OpenLease):
            self._open(action)
        elif isinstance(action, ev.AckItems):
            self._post(action.lease, messages.ItemsTaken(action.input, action.items))
        elif isinstance(action, ev.ScaleLease):
            self._post(action.lease, messages.ScaleWorkers(action.least, action.most))
        elif isinstance(action, ev.AbortInput):
            self._post(action.lease, messages.CancelInput(action.input, action.reason))
        elif isinstance(action, ev.EndLease):
            self._close(action)

    def _send(self, action: ev.SendInput) -> None:
        lease = self.leases.get(action.lease)
        if lease and lease.link:
            lease.books.meter.sent(action.input, action.attempt, action.payload, self._node.now_us)
            lease.link.post(messages.Input(action.input, action.attempt, action.payload, action.plain))

    def _post(self, lease: str, message: Message) -> None:
        held = self.leases.get(lease)
        if held and held.link:
            held.link.post(message)

    def _open(self, action: ev.OpenLease) -> None:
        node, function = self._node, action.function
        offer = node.book.offers.get(action.peer)
        fresh_us = offer.expires_us - node.now_us if offer else 1 if action.peer == node.peer else 0
        trusted = self.core._hiring.standing(action.peer).secrets
        self._world.fact(LeaseWanted(node.name, action.peer, function.name, fresh_us, bool(function.secrets), trusted))
        books = CallerBooks(node.key, node.journal, node.keep, action.lease, action.peer, action.function)
        lease = Lease(action, books)
        self.leases[action.lease] = lease
        if action.peer == self._node.peer:
            link = self._node.open_local(action.lease)
            link.on_message = partial(self._take, lease)
            self._ask(lease, link)
        else:
            kinds = (messages.ToCaller, messages.ToProvider)
            end = self._node.network.open(self._node, action.peer, kinds, partial(self._opened, lease))
            end.on_end = partial(self._forget, lease)

    def _opened(self, lease: Lease, end: End) -> None:
        if lease.closing:
            end.finish()
            return
        end.on_message = partial(self._take, lease)
        self._ask(lease, end)
        self._node.later(GRANT_TIMEOUT_US, partial(self._expect_answer, lease, end))

    def _ask(self, lease: Lease, link: Link) -> None:
        action, lease.link = lease.action, link
        link.post(
            messages.LeaseRequest(
                self._node.protocol, action.lease, action.function, action.inputs_waiting, self._node.now_us, "netsim"
            )
        )

    def _expect_answer(self, lease: Lease, end: End) -> None:
        if not lease.answered:
            end.finish()

    def _forget(self, lease: Lease, why: str) -> None:
        if self.leases.pop(lease.action.lease, None):
            self._over(lease)
            self.submit(ev.LeaseLost(lease.action.lease, why or "the peer closed the lease"))

    def _close(self, action: ev.EndLease) -> None:
        lease = self.leases.get(action.lease)
        if lease is None or lease.closing:
            return
        lease.closing = True
        if lease.link:
            lease.link.post(messages.CloseLease(action.reason))
            # Nobody bills themselves: there is no receipt to wait for.
            local = action.lease in self.leases and lease.action.peer == self._node.peer
            self._node.later(0 if local else RECEIPT_TIMEOUT_US, partial(self._settled, lease))

    def _settled(self, lease: Lease) -> None:
        """The receipt came, or will not come: end the stream."""
        if lease.closing and lease.link and self.leases.pop(lease.action.lease, None):
            self._over(lease)
            lease.link.finish()

    # Messages

    def _take(self, lease: Lease, message: Any) -> None:
        name = lease.action.lease
        if isinstance(message, messages.InputDone):
            lease.books.meter.came(message, self._node.now_us)
            self.submit(ev.InputFinished(name, message))
        elif isinstance(message, messages.InputStarted):
            lease.books.meter.began(message.input, message.attempt)
            self.submit(ev.InputBegan(name, message.input, message.worker))
        elif isinstance(message, messages.LeaseGranted):
            lease.answered = True
            self.submit(ev.LeaseAccepted(name, message.slots))
        elif isinstance(message, messages.LeaseProgress):
            self.submit(ev.LeaseStage(name, message.stage))
        elif isinstance(message, messages.LeaseReady):
            self.submit(ev.LeaseStage(name, ""))
        elif isinstance(message, messages.ReceiptOffered):
            self._receipt(lease, message.envelope)
        elif isinstance(message, messages.VoucherOffered):
            self._voucher(lease, message.envelope)
        else:
            self._ended_by_provider(lease, message)

    def _ended_by_provider(self, lease: Lease, message: messages.LeaseRefused | messages.CloseLease) -> None:
        lease.answered = True
        if lease.closing:
            return
        lease.closing = True
        if isinstance(message, messages.LeaseRefused):
            failure, reason, wait_us = message.failure, message.reason, message.retry_after_us
        else:
            failure, reason, wait_us = Failure.of(Error("The lease ended.", why=message.reason)), "busy", 0
        self.submit(ev.LeaseDenied(lease.action.lease, reason, failure, wait_us))
        self._node.later(RECEIPT_TIMEOUT_US, partial(self._settled, lease))

    def _over(self, lease: Lease) -> None:
        self._book_end(lease, self._node.now_us)
        bound_us = lease.books.meter.bound_us(self._node.now_us)
        self._world.fact(Seen(self._node.name, lease.action.peer, bound_us))

    def _book_end(self, lease: Lease, ended_us: int) -> None:
        def kept(problem: Problem) -> None:
            if problem:
                self._node.later(KEEP_AGAIN_US, partial(self._book_end, lease, ended_us))

        lease.books.over(ended_us, kept)

    def _voucher(self, lease: Lease, data: bytes) -> None:
        def answer(signed: bytes, why: str) -> None:
            used_us = read_voucher(signed).lease_us if signed else 0
            self._world.fact(VoucherChecked(self._node.name, who, why, used_us))
            self._post(lease.action.lease, messages.VoucherSigned(signed, why))

        who = self._node.network.hosts[lease.action.peer].name
        lease.books.voucher(data, self._node.now_us, answer)

    def _receipt(self, lease: Lease, data: bytes) -> None:
        def answer(signed: bytes, why: str) -> None:
            _, receipt = read_receipt(data)
            self._world.fact(ReceiptChecked(self._node.name, who, receipt, why, lease.books.meter))
            self._billed(lease.action.peer, bool(signed), lease.books.overbilled)
            self._post(lease.action.lease, messages.ReceiptSigned(signed, why))
            self._settled(lease)

        who = self._node.network.hosts[lease.action.peer].name
        lease.books.receipt(data, self._node.now_us, answer)

    def _billed(self, peer: str, is_signed: bool, is_overbilled: bool) -> None:
        if is_overbilled or (is_signed and self.core.speaks_for(peer)):
            self.core.reputation.billed(peer, not is_overbilled, self._node.now_us)
