"""Nodes that cheat: each kind breaks one rule of a lease's bookkeeping, and runs the node's own cores in all else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from potluck.wire import PROTOCOL
from potluck.wire import lease as messages
from potluck_ledger.audit import audit
from potluck_ledger.balance import UNSIGNED_PERCENT, UNSIGNED_US
from potluck_ledger.entries import Dispute, Receipt, Voucher, sign
from potluck_ledger.envelope import countersign, open_envelope
from potluck_ledger.journal import verify
from potluck_ledger.vouchers import UNSIGNED_MAX_US
from potluck_netsim import facts
from potluck_netsim.caller import Lease, SimCaller
from potluck_netsim.checkers import SecondsAreConserved
from potluck_netsim.interface import Link
from potluck_netsim.machine import NOTICED_US
from potluck_netsim.node import Node
from potluck_netsim.provider import SimProvider
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.workload import FUNCTIONS
from potluck_netsim.world import Checker, Fact, Trace, World
from potluck_node.core import provider_events as ev

# What two that wash sign to each other, though nothing ran.
WASHED_US = 3_600_000_000


class Doubling(SimProvider):
    """Bills twice what was used, in vouchers and receipts."""

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.OfferVoucher):
            voucher = msgspec.structs.replace(action.voucher, lease_us=2 * action.voucher.lease_us)
            action = ev.OfferVoucher(action.lease, voucher)
        super()._do(action)

    def _write(self, action: ev.SettleLease) -> Receipt:
        receipt = super()._write(action)
        return msgspec.structs.replace(receipt, lease_us=2 * receipt.lease_us)


class Padding(SimProvider):
    """Claims ten seconds more for each input, wherever it speaks of it."""

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.Post) and isinstance(done := action.message, messages.InputDone):
            action = ev.Post(action.lease, msgspec.structs.replace(done, run_us=done.run_us + 10_000_000))
        super()._do(action)


class Repeating(SimProvider):
    """Has each receipt signed twice, under another nonce, and offers each voucher again."""

    def _do(self, action: ev.Action) -> None:
        super()._do(action)
        if isinstance(action, ev.OfferVoucher):
            super()._do(action)

    def _settle(self, action: ev.SettleLease) -> None:
        super()._settle(action)
        held = self.held.get(action.lease)
        if held and action.meter.inputs and action.caller != self._node.peer:
            held.link.post(messages.ReceiptOffered(self._receipt(action)))


class Unsigning(SimCaller):
    """Signs nothing, and takes the results."""

    def _voucher(self, lease: Lease, data: bytes) -> None:
        self._post(lease.action.lease, messages.VoucherSigned(refused="no"))

    def _receipt(self, lease: Lease, data: bytes) -> None:
        self._post(lease.action.lease, messages.ReceiptSigned(refused="no"))
        self._settled(lease)


class Withholding(SimCaller):
    """Signs what it must, and no receipt."""

    def _receipt(self, lease: Lease, data: bytes) -> None:
        self._settled(lease)


class Belittling(SimCaller):
    """Signs half of each voucher."""

    def _voucher(self, lease: Lease, data: bytes) -> None:
        envelope = open_envelope(data, Voucher.KIND)
        voucher = Voucher(lease.action.lease, self._node.peer, lease.action.peer, 1, 1, self._node.now_us)
        changed = sign(self._node.key, voucher)
        forged = msgspec.structs.replace(changed, signatures=(*envelope.signatures, *changed.signatures))
        self._post(lease.action.lease, messages.VoucherSigned(forged.encode()))

    _receipt = Unsigning._receipt


class Replaying(SimCaller):
    """Answers each voucher with the first one that it signed of that lease, and signs no receipt."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._first: dict[str, bytes] = {}

    def _voucher(self, lease: Lease, data: bytes) -> None:
        signed = countersign(self._node.key, open_envelope(data, Voucher.KIND)).encode()
        first = self._first.setdefault(lease.action.lease, signed)
        self._post(lease.action.lease, messages.VoucherSigned(first))

    _receipt = Unsigning._receipt


class Renaming(SimCaller):
    """Gives all its leases one name, pays for the first, and for no other."""

    paid = False

    def _ask(self, lease: Lease, link: Link) -> None:
        if lease.action.peer == self._node.peer:
            super()._ask(lease, link)
            return
        lease.link = link
        action, now_us = lease.action, self._node.now_us
        request = messages.LeaseRequest(PROTOCOL, "one name", action.function, action.inputs_waiting, now_us, "netsim")
        link.post(request)

    def _voucher(self, lease: Lease, data: bytes) -> None:
        Unsigning._voucher(self, lease, data)  # type: ignore[arg-type]

    def _receipt(self, lease: Lease, data: bytes) -> None:
        first, self.paid = not self.paid, True
        signed = countersign(self._node.key, open_envelope(data, Receipt.KIND)).encode()
        self._post(lease.action.lease, messages.ReceiptSigned(signed if first else b"", "" if first else "no"))
        self._settled(lease)


CHEATS: dict[str, tuple[type[SimCaller], type[SimProvider]]] = {
    "honest": (SimCaller, SimProvider),
    "doubling": (SimCaller, Doubling),
    "padding": (SimCaller, Padding),
    "repeating": (SimCaller, Repeating),
    "unsigning": (Unsigning, SimProvider),
    "withholding": (Withholding, SimProvider),
    "belittling": (Belittling, SimProvider),
    "replaying": (Replaying, SimProvider),
    "renaming": (Renaming, SimProvider),
    "washing": (SimCaller, SimProvider),
}


@dataclass
class NoCheatPays(SecondsAreConserved):
    """What an honest provider gave is paid for, or proven by what it kept, and little; what an honest caller signed,
    its own clock saw."""

    promise = "no cheat ends both unpaid for and unproven"
    seen_us: dict[tuple[str, str], int] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.Seen):
            key = (fact.node, self.names[fact.peer])
            self.seen_us[key] = self.seen_us.get(key, 0) + fact.bound_us
        super().see(fact, world)

    def _reckoned(self, world: World) -> None:
        super()._reckoned(world)
        for (node, peer), kept in self.kept.items():
            # Who died has not said what it saw.
            if (
                node not in self.liars | self.died
                and kept.used_us > self.seen_us.get((node, peer), 0) + kept.disputed_us
            ):
                world.broken(self.promise, f"{node} signed {kept.used_us} µs to {peer}, more than it saw", node, peer)
        for node, caller in self.used_us:
            if node != caller and node not in self.liars | self.died:
                self._paid(node, caller, world)

    def _paid(self, node: str, caller: str, world: World) -> None:
        unpaid_us, shown_us = self.unpaid_us(node, caller), self._of(node, caller).unsigned_us
        if unpaid_us > self.allowed_us(node, caller):
            world.broken(self.promise, f"{caller} used {unpaid_us} µs for which it never signed", node, caller)
        if unpaid_us > shown_us:
            how = f"{caller} did not sign {unpaid_us} µs, and {node} shows {shown_us} µs"
            world.broken(self.promise, how, node, caller)

    def _of(self, node: str, caller: str) -> facts.Kept:
        return self.kept.get((node, caller), facts.Kept(node, caller, 0, 0, 0))

    def unpaid_us(self, node: str, caller: str) -> int:
        """What a provider gave, and has no signature for; a use's last moments are billed to nobody."""
        uses = self.uses.get((node, caller), 0)
        return self.used_us.get((node, caller), 0) - self._of(node, caller).given_us - uses * NOTICED_US

    def allowed_us(self, node: str, caller: str) -> int:
        """What vouchers let it lose. One lease for each function may be on its way when enough is enough."""
        part_us = self._of(node, caller).given_us * UNSIGNED_PERCENT // 100
        return UNSIGNED_US + part_us + len(FUNCTIONS) * UNSIGNED_MAX_US


class Cheats(Lab):
    """A lab in which every second node cheats in its own way, or two wash; nobody dies, so that all can be reckoned."""

    def __init__(self, options: Options, write: Trace = None) -> None:
        self._kinds: dict[str, str] = {}
        super().__init__(options, write)
        washing = [node for node in self.nodes if self._kinds[node.name] == "washing"]
        for one, other in pairwise(washing):
            self._wash(one, other)

    def _node(self, number: int) -> Node:
        cheats = sorted(set(CHEATS) - {"honest"})
        kind = cheats[(self.world.seed + number // 2) % len(cheats)] if number % 2 else "honest"
        caller, provider = CHEATS[kind]
        made = type("Cheat", (Node,), {"make_caller": caller, "make_provider": provider})
        node: Node = self._made(number, made)
        self._kinds[node.name] = kind
        return node

    def _checkers(self) -> list[Checker]:
        liars = frozenset(name for name, kind in self._kinds.items() if kind != "honest")
        return [NoCheatPays({node.peer: node.name for node in self.nodes}, liars)]

    def _wash(self, one: Node, other: Node) -> None:
        for giver, user in ((one, other), (other, one)):
            receipt = Receipt(
                f"washed-{giver.name}", user.peer, giver.peer, "ab" * 16, "lab.none", "cd" * 32, bytes(16),
                1, 2, WASHED_US, 0, 0, 1, bytes(32),
            )  # fmt: skip
            signed = countersign(user.key, sign(giver.key, receipt)).encode()
            for node in (giver, user):
                node.journal.append(signed, self.world.now_us)

    def findings(self) -> Iterator[Any]:
        """What an audit of all journals says; they are verified first."""
        journals = [(node.peer, verify(node.peer, node.journal.records())) for node in self.nodes]
        yield from audit(journals)

    def disputes(self, node: Node) -> int:
        """Microseconds that a node says were not signed."""
        entries = verify(node.peer, node.journal.records())
        found = [entry.content for entry in entries if isinstance(entry.content, Dispute)]
        return sum(each.claimed_us - each.signed_us for each in found)

    def kinds(self) -> dict[str, str]:
        """Of each node, by its name."""
        return dict(self._kinds)
