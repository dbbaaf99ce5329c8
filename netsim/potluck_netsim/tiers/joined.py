"""The second tier: the node's own code on trio's virtual time, joined by the transport in memory.

Real are caller, provider, pools, discovery, engines, links with credit and heartbeats, books and journals. Stand-ins
are sandboxes and images (`virtual.py`), the disk under the journal, and the network: one latency, no bandwidth, nothing
lost. Not there at all: clients, images, volumes, shared state, journals of others.
Time is virtual; order is not fixed: trio shuffles what is ready at one moment, and the caller draws its lenders from
the system's randomness. So times may differ a little from run to run, and what users are promised may not.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio
import trio.testing

from potluck.wire import lease as messages
from potluck.wire.offer import Offer
from potluck_ledger.journal import Journal
from potluck_ledger.keys import PrivateKey
from potluck_netsim.node import BY_HAND, MESH
from potluck_netsim.tiers.outcome import Outcome, Watch, receipts
from potluck_netsim.tiers.plan import Call, Fault, Machine, Plan
from potluck_netsim.tiers.simulated import FUNCTION, call_of, payload
from potluck_netsim.tiers.virtual import VirtualImages, VirtualLauncher
from potluck_netsim.world import START_US
from potluck_node.caller import LEASE_PROTOCOL, Caller
from potluck_node.config import Settings
from potluck_node.core import events as ev
from potluck_node.core import provider_events as pev
from potluck_node.core.offers import OFFER_LIFE_US, OfferBook, rank_offer
from potluck_node.core.pools import Capacity
from potluck_node.core.staff import IDLE_US
from potluck_node.discovery import Discovery
from potluck_node.plain_offer import plain_offer
from potluck_node.provider import Provider
from potluck_node.transport.interface import RecordRank
from potluck_node.transport.memory import MemoryNetwork, MemoryStream, MemoryTransport

if TYPE_CHECKING:
    from trio_typing import TaskStatus

# On virtual time a mesh that hangs would wait for ever: so many virtual seconds after the plan's end it is over.
PATIENCE_S = 60.0
# How often it is looked whether all know all, virtual seconds.
LOOK_S = 0.05


class VirtualClock:
    """A node's clock on trio's time."""

    def now_us(self) -> int:
        return START_US + round(trio.current_time() * 1e6)


class _Transport(MemoryTransport):
    """Counts the leases that reach their lender."""

    def __init__(self, network: MemoryNetwork, peer: str, rank: RecordRank, bootstrap: list[str], watch: Watch) -> None:
        super().__init__(network, peer, rank, [f"/memory/p2p/{other}" for other in bootstrap])
        self._watch = watch

    async def open(self, peer: str, protocol: str) -> MemoryStream:
        stream = await super().open(peer, protocol)
        # Of the round trip that it takes to open a stream, the network in memory has half.
        await trio.sleep(self._network.delay_s)
        self._watch.leases += protocol == LEASE_PROTOCOL
        return stream


class JoinedNode:
    """What `node.py` makes of one machine, as far as this tier has it."""

    def __init__(self, network: MemoryNetwork, machine: Machine, bootstrap: list[str], watch: Watch) -> None:
        self.machine, self._network, self._watch = machine, network, watch
        self.clock, self.there = VirtualClock(), True
        self.key = PrivateKey(blake2b(machine.name.encode(), digest_size=32).digest())
        self.peer = self.key.peer
        self.journal = Journal(Path(":memory:"), self.key, lambda path: sqlite3.connect(path, isolation_level=None))
        self.book = OfferBook(MESH, self.peer)
        self.transport = _Transport(network, self.peer, self._rank, bootstrap, watch)
        self.caller = Caller(self.transport, self.key, self.book, self.journal, self.clock)
        self.provider = self._provider() if machine.lends else None
        self.discovery = Discovery(self.transport, self.key, self.book, self.clock, self.make_offer)
        settings = Settings(name=machine.name, mesh=MESH, cpus=machine.cpus, memory_mib=machine.memory_mib)
        self._plain, self._sequence = plain_offer(self.peer, settings, ("bwrap",)), 0
        self._scope = trio.CancelScope()
        self._wire_up()

    def _rank(self, key: str, value: bytes) -> int | None:
        return rank_offer(key, value, self.clock.now_us())

    def _provider(self) -> Provider:
        capacity = Capacity(1000 * self.machine.cpus, self.machine.memory_mib)
        launcher = VirtualLauncher(self._began)
        return Provider(
            self.machine.name, self.key, capacity, VirtualImages(), launcher, self.journal, self.clock, idle_us=IDLE_US
        )

    def _began(self, payload: bytes) -> float:
        """A worker begins an input, which takes so many seconds."""
        call = call_of(payload)
        if self.there:
            self._watch.ran(call)
        return self._watch.plan.call(call).run_s

    def _wire_up(self) -> None:
        self.discovery.changed = lambda: self.caller.submit(ev.OffersChanged())
        if self.provider:
            self.caller.open_local = self.provider.open_local
            self.caller.own_offer = self.make_offer
            self.provider.on_offer = self._offer_changed
            self.provider.refuses = lambda peer: self.book.banned.get(peer, "")
            self.transport.handle(LEASE_PROTOCOL, self.provider.on_stream)

    def _offer_changed(self) -> None:
        self.discovery.touch()
        self.caller.submit(ev.OffersChanged())

    def make_offer(self) -> Offer | None:
        """As `Node.make_offer`."""
        if self.provider is None:
            return None
        core, now_us = self.provider.core, self.clock.now_us()
        free, idle = core.room.free(), core.room.idle()
        self._sequence = max(self._sequence + 1, now_us)
        return msgspec.structs.replace(
            self._plain,
            sequence=self._sequence,
            issued_us=now_us,
            expires_us=now_us + OFFER_LIFE_US,
            state="paused" if core.paused else "open",
            addresses=self.transport.addresses(),
            cpu_free_milli=free[0] + idle[0],
            memory_free_mib=free[1] + idle[1],
            slots_free=(free[0] + idle[0]) // 1000,
            images=(FUNCTION.image,),
            warm=core.warm(),
        )

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until killed."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.transport.serve)
                await nursery.start(self.caller.serve)
                if self.provider:
                    await nursery.start(self.provider.serve)
                await nursery.start(self.discovery.serve)
                task_status.started()

    def kill(self) -> None:
        """Its connections end with it, before it can say a word."""
        self.there = False
        self._network.drop(self.peer)
        self._scope.cancel()

    def pause(self) -> None:
        if self.provider:
            self.provider.submit(pev.Paused(BY_HAND, now=True))

    def resume(self) -> None:
        if self.provider:
            self.provider.submit(pev.Resumed())


class _Sink:
    """Whoever placed a call."""

    def __init__(self, call: str, watch: Watch) -> None:
        self._call, self._watch, self.done = call, watch, trio.Event()

    def deliver(self, action: ev.Deliver) -> None:
        kind = "failure" if action.failure else "exception" if action.exception else "result"
        self._watch.came(self._call, action.index, kind, trio.current_time())

    def ended(self, action: ev.CallEnded) -> None:
        self._watch.over(self._call, trio.current_time())
        self.done.set()

    def item(self, action: ev.DeliverItem) -> None:
        """No plan has generators."""

    def began(self, action: ev.Began) -> None:
        """Told for requests alone."""

    def taken(self, action: ev.DeliverTaken) -> None:
        """No plan has requests."""

    def notice(self, action: ev.Notice) -> None:
        """For people."""

    def log(self, call: str, index: int, message: messages.InputLog) -> None:
        """Nothing prints."""

    async def drained(self) -> None:
        await trio.lowlevel.checkpoint()


class Joined:
    """The mesh of a plan. Each node dials all before it."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.watch = plan, Watch(plan)
        self.network = MemoryNetwork(plan.latency_ms / 1e3)
        self.nodes: dict[str, JoinedNode] = {}
        # After how long all callers knew all lenders.
        self.known_s = float("inf")
        for machine in plan.nodes:
            before = [node.peer for node in self.nodes.values()]
            self.nodes[machine.name] = JoinedNode(self.network, machine, before, self.watch)

    async def run(self) -> Outcome:
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                await nursery.start(node.serve)
            with trio.move_on_after(self.plan.ends_s + PATIENCE_S):
                await self._know_each_other()
                async with trio.open_nursery() as events:
                    for call in self.plan.calls:
                        events.start_soon(self._in, call.at_s, self._place, call)
                    for fault in self.plan.faults:
                        events.start_soon(self._in, fault.at_s, self._befall, fault)
                    events.start_soon(trio.sleep, self.plan.ends_s)
            nursery.cancel_scope.cancel()
        return self._outcome()

    async def _know_each_other(self) -> None:
        lenders = {node.peer for node in self.nodes.values() if node.provider}
        callers = [self.nodes[call.node] for call in self.plan.calls]
        while any(lenders - {*node.book.offers, node.peer} for node in callers):  # noqa: ASYNC110 - time is virtual
            await trio.sleep(LOOK_S)
        self.known_s = trio.current_time()

    async def _in(self, in_s: float, do: Callable[..., Awaitable[None]], *what: object) -> None:
        await trio.sleep(in_s)
        await do(*what)

    async def _place(self, call: Call) -> None:
        caller, sink = self.nodes[call.node].caller, _Sink(call.name, self.watch)
        self.watch.placed(call.name, trio.current_time())
        caller.open(call.name, FUNCTION, sink)
        for index in range(call.inputs):
            caller.submit(ev.InputAdded(call.name, index, payload(call, index)))
        caller.submit(ev.InputsEnded(call.name))
        await sink.done.wait()

    async def _befall(self, fault: Fault) -> None:
        nodes = [self.nodes[name] for name in fault.nodes]
        if fault.kind == "kill":
            for node in nodes:
                node.kill()
        elif fault.kind == "unplug":
            for node in nodes:
                # It runs on where nobody hears it: to end it would end its streams.
                node.there = False
                self._between([node], self.network.silence)
        elif fault.kind == "pause":
            for node in nodes:
                node.pause()
            await trio.sleep(fault.for_s)
            for node in nodes:
                node.resume()
        else:
            # Time cannot be stopped for one node alone: one that is frozen is only not heard.
            self._between(nodes, self.network.silence)
            await trio.sleep(fault.for_s)
            self._between(nodes, self.network.heal)

    def _between(self, side: list[JoinedNode], do: Callable[[str, str], None]) -> None:
        ours = [node.peer for node in side]
        for one in ours:
            for other in self.nodes.values():
                if other.peer not in ours:
                    do(one, other.peer)

    def _outcome(self) -> Outcome:
        there = [node for node in self.nodes.values() if node.there]
        found = [receipts(node.journal.records(), node.peer) for node in there]
        used, inputs, halves = (sum(each) for each in zip(*found, strict=True))
        remark = f"all callers knew all lenders after {self.known_s:.2f} s"
        counts = self.watch.leases, used, inputs, halves
        return Outcome("joined", len(self.nodes), self.watch.fates(), *counts, remarks=(remark,))


def run(plan: Plan) -> Outcome:
    """Blocking; on virtual time, so it takes as long as what is computed."""
    began_s = time.monotonic()

    async def main() -> Outcome:
        return await Joined(plan).run()

    clock = trio.testing.MockClock(autojump_threshold=0)
    return msgspec.structs.replace(trio.run(main, clock=clock), spent_s=time.monotonic() - began_s)
