"""The provider's side of leases in a simulated node: does with its core's actions what `provider.py` does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from potluck.errors import RefusedError
from potluck.wire import PROTOCOL, Failure
from potluck.wire import lease as messages
from potluck_ledger.entries import Receipt, sign
from potluck_ledger.journal import JournalError, Problem
from potluck_netsim.driver import Driver
from potluck_netsim.facts import Billed, VoucherChecked
from potluck_netsim.interface import Link, SimNode
from potluck_netsim.machine import Machine
from potluck_netsim.network import End
from potluck_node.books import settle
from potluck_node.core import provider_events as ev
from potluck_node.core.provider import ProviderCore
from potluck_node.core.receipts import write_receipt
from potluck_node.core.staff import IDLE_US
from potluck_node.link import LocalLink, local_links
from potluck_node.provider import LEASES_MAX, UNSIGNED_RETRY_US
from potluck_node.settling import COUNTERSIGN_TIMEOUT_S

# Why a node takes no more work.
DISK_FULL = "the journal cannot be written"

COUNTERSIGN_TIMEOUT_US = int(COUNTERSIGN_TIMEOUT_S * 1e6)


@dataclass(eq=False)
class _Held:
    caller: str
    link: Link
    # What came back of the receipt.
    countersigned: bytes = b""


class SimProvider:
    def __init__(self, node: SimNode) -> None:
        self._node, self._world = node, node.world
        self.core = ProviderCore(node.name, node.capacity, "netsim", IDLE_US, node.peer)
        self._driver = Driver[ev.Event, ev.Action](node, "pools", self.core, self._do, ev.Tick())
        self.machine = Machine(node, self.submit)
        self.held: dict[str, _Held] = {}
        # What waits for the caller's signature, by lease.
        self._settling: dict[str, tuple[ev.SettleLease, bytes]] = {}

    def submit(self, event: ev.Event) -> None:
        self._driver.submit(event)

    # Leases

    def accept(self, end: End) -> None:
        """Serve one lease stream."""
        names: list[str] = []

        def take(message: Any) -> None:
            if names:
                self._take(names[0], message)
            else:
                names.append(self._ask(message, end.peer, end))

        end.on_message = take
        end.on_end = lambda why: self._gone(names[0], why or "the caller is done") if names else None

    def open_local(self, lease: str) -> LocalLink:
        ours, theirs = local_links()
        ours.on_message = lambda message: self._take_local(lease, ours, message)
        return theirs

    def _take_local(self, lease: str, link: LocalLink, message: Any) -> None:
        if lease in self.held:
            self._take(lease, message)
        else:
            self._ask(message, self._node.peer, link)

    def _ask(self, message: Any, caller: str, link: Link) -> str:
        assert isinstance(message, messages.LeaseRequest), f"a lease begins with {message!r}"
        # The core takes its own version for the one of today.
        message = msgspec.structs.replace(message, protocol=PROTOCOL + message.protocol - self._node.protocol)
        if message.lease in self.held or len(self.held) >= LEASES_MAX:
            link.post(messages.LeaseRefused("busy", Failure.of(RefusedError("This node holds too many leases."))))
            link.finish()
            return ""
        if why := self._node.book.banned.get(caller):
            link.post(messages.LeaseRefused("policy", Failure.of(RefusedError(f"Nothing is run for you: {why}."))))
            link.finish()
            return ""
        owes = self._node.journal.accounts.account(caller).owes_too_much
        if owes or self._node.journal.knows_lease(caller, message.lease):
            link.post(messages.LeaseRefused("quota", Failure.of(RefusedError("It owes.")), UNSIGNED_RETRY_US))
            link.finish()
            return ""
        self.held[message.lease] = _Held(caller, link)
        self.submit(ev.LeaseAsked(message.lease, caller, message))
        return str(message.lease)

    def _take(self, lease: str, message: Any) -> None:
        if isinstance(message, messages.Input):
            self.submit(ev.InputCame(lease, message))
        elif isinstance(message, messages.CancelInput):
            self.submit(ev.InputDropped(lease, message.input, message.reason))
        elif isinstance(message, messages.ItemsTaken):
            self.submit(ev.ItemsTaken(lease, message.input, message.items))
        elif isinstance(message, messages.ScaleWorkers):
            self.submit(ev.LeaseScaled(lease, message.least, message.most))
        elif isinstance(message, messages.CloseLease):
            self.submit(ev.LeaseGone(lease, message.reason))
        elif isinstance(message, messages.ReceiptSigned) and lease in self.held:
            self.held[lease].countersigned = message.envelope
            self._settled(lease)
        elif isinstance(message, messages.VoucherSigned) and message.envelope:
            self._voucher(lease, message.envelope)

    def _gone(self, lease: str, why: str) -> None:
        self.submit(ev.LeaseGone(lease, why))
        self._settled(lease)
        self.held.pop(lease, None)

    # Actions

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.Post):
            if action.lease in self.held:
                self.held[action.lease].link.post(action.message)
        elif isinstance(action, ev.Run):
            self.machine.run(action)
        elif isinstance(action, ev.SpawnWorker):
            self.machine.spawn(action)
        elif isinstance(action, ev.StopInput):
            self.machine.stop_input(action)
        elif isinstance(action, ev.WarnWorker):
            self.machine.warn(action)
        elif isinstance(action, ev.CalmWorker):
            self.machine.calm(action)
        elif isinstance(action, ev.KillWorker | ev.StopWorker):
            self.machine.kill(action.pool, action.worker)
        elif isinstance(action, ev.PreparePool):
            self.machine.prepare(action)
        elif isinstance(action, ev.ClosePool):
            self.machine.close(action.pool)
        elif isinstance(action, ev.SettleLease):
            # The real one starts a task for it, which runs after the actions that follow.
            self._node.later(0, partial(self._settle, action))
        elif isinstance(action, ev.OfferVoucher):
            envelope = sign(self._node.key, action.voucher).encode()
            self._do(ev.Post(action.lease, messages.VoucherOffered(envelope)))
        elif isinstance(action, ev.VoucherRefused):
            self._world.fact(VoucherChecked(self._node.name, action.lease, action.why))
        elif isinstance(action, ev.Hangup):
            held = self.held.pop(action.lease, None)
            if held:
                held.link.finish()
        else:
            self._node.offer_changed()

    # Receipts

    def _voucher(self, lease: str, envelope: bytes) -> None:
        """Keep it before it counts."""

        def held(problem: Problem) -> None:
            if problem is None:
                self.submit(ev.VoucherCame(lease, envelope))
            elif not isinstance(problem, JournalError):
                self._world.fact(VoucherChecked(self._node.name, lease, str(problem)))

        self._node.keep(lambda: self._node.journal.hold(envelope), held)

    def _settle(self, action: ev.SettleLease) -> None:
        held = self.held.get(action.lease)
        if not (action.function and action.meter.inputs and action.caller != self._node.peer):
            self._let_go(action.lease)
            return
        receipt = self._receipt(action)
        self._settling[action.lease] = (action, receipt)
        if held:
            held.link.post(messages.ReceiptOffered(receipt))
        self._node.later(COUNTERSIGN_TIMEOUT_US if held else 0, partial(self._settled, action.lease))

    def _settled(self, lease: str) -> None:
        """The caller answered, is gone, or took too long."""
        if lease not in self._settling:
            self._let_go(lease)
            return
        (action, receipt), held, node = self._settling.pop(lease), self.held.get(lease), self._node
        theirs, now_us = held.countersigned if held else b"", node.now_us

        def kept(problem: Problem) -> None:
            self._let_go(lease)
            if problem is None:
                self._world.fact(Billed(node.name, action.caller, lease, action.meter.run_us, bool(action.gpu)))
            else:
                # Without a journal nothing can be billed, so nothing more is run.
                self.submit(ev.Paused(DISK_FULL))

        node.keep(lambda: settle(node.key, node.journal, action, receipt, theirs, now_us), kept)

    def _let_go(self, lease: str) -> None:
        held = self.held.pop(lease, None)
        if held:
            held.link.finish()

    def _receipt(self, action: ev.SettleLease) -> bytes:
        return sign(self._node.key, self._write(action)).encode()

    def _write(self, action: ev.SettleLease) -> Receipt:
        assert action.function
        return write_receipt(
            lease=action.lease,
            caller=action.caller,
            provider=self._node.peer,
            spec=action.function,
            meter=action.meter,
            times=(action.started_us, self._node.now_us),
            nonce=self._world.dice.randbytes(16),
            reason=action.reason,
            gpu=action.gpu,
            tier=action.tier,
        )
