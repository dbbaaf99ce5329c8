"""`Libp2pTransport`: one node's presence on the mesh."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.tools.anyio_service import background_trio_service

import potluck_node.transport.libp2p.library  # noqa: F401 - sets up libp2p before anything uses it
from potluck.wire.doctor import AskReach, ReachReport
from potluck_ledger.keys import PrivateKey
from potluck_node.transport.common import (
    STREAMS_PER_PEER_MAX,
    TopicInbox,
    keep_connected,
    run_handler,
    some,
)
from potluck_node.transport.framed import FramedStream, Pipe
from potluck_node.transport.interface import (
    Admission,
    NotAdmittedError,
    PeerUnreachableError,
    RecordRank,
    StreamHandler,
    TopicHandler,
    TransportError,
)
from potluck_node.transport.libp2p import mdns
from potluck_node.transport.libp2p.admission import INTRODUCTION, Door
from potluck_node.transport.libp2p.dial import Dialer, listen, parse, shut_down
from potluck_node.transport.libp2p.gossip import Gossip
from potluck_node.transport.libp2p.host import build_host
from potluck_node.transport.libp2p.lanes import LANE_PROTOCOL, Lane, Lanes
from potluck_node.transport.libp2p.pipe import Budget, MuxedPipe, RelayedPipe
from potluck_node.transport.libp2p.reach import mapping, roaming
from potluck_node.transport.libp2p.reach.service import Reach
from potluck_node.transport.libp2p.reach.talk import REACH_PROTOCOL
from potluck_node.transport.libp2p.records import Records

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.transport")

# The host is started again when the library fails inside; seconds before that. Long enough that a failure
# which repeats does not fill the log, short enough that callers of this node do not give up.
RESTART_S = 1.0

# A connection through a relay without streams of ours is closed after so long, seconds.
CIRCUIT_IDLE_S = 60.0


class _Live:
    """What exists while a host runs."""

    def __init__(
        self, key: PrivateKey, psk: bytes | None, rank: RecordRank, admission: Admission | None = None
    ) -> None:
        self.host = build_host(key, psk, admission)
        self.door: Door | None = self.host.get_network().door
        self.dialer = Dialer(self.host)
        self.records = Records(self.host, rank)
        self.gossip = Gossip(self.host)
        self.streams: defaultdict[str, set[FramedStream]] = defaultdict(set)
        self.lanes: Lanes | None = None
        self.reach: Reach
        # Ask the router for a port again.
        self.remap: Callable[[], None] = lambda: None
        self.budgets: defaultdict[str, dict[str, Budget]] = defaultdict(dict)
        self.nursery: trio.Nursery

    def check_budget(self, peer: str, protocol: str) -> None:
        """Raises `PeerUnreachableError` when a relay carries no more of this to the peer."""
        if not self.dialer.is_relayed(peer):
            self.budgets.pop(peer, None)
        elif protocol in self.budgets[peer]:
            try:
                self.budgets[peer][protocol].check()
            except TransportError as error:
                raise PeerUnreachableError(f"{peer} carries no more of {protocol}: {error}") from None


class Libp2pTransport:
    """The transport over libp2p. `psk` is a 32-byte pre-shared key that all nodes of a private mesh have.
    With `lane`, streams to peers that can be dialled are TLS connections of their own.

    Raises `PeerUnreachableError` when a bootstrap address is none.
    """

    def __init__(
        self,
        key: PrivateKey,
        listen: tuple[str, ...],
        bootstrap: tuple[str, ...],
        rank_record: RecordRank,
        mdns: bool = False,
        psk: bytes | None = None,
        lane: bool = True,
        admission: Admission | None = None,
        relay: bool = True,
        upnp: bool = False,
    ) -> None:
        for address in bootstrap:
            parse(address)
        self._key, self._listen, self._bootstrap = key, listen, bootstrap
        self._rank, self._mdns, self._psk, self._lane = rank_record, mdns, psk, lane
        self._admission, self._relay, self._upnp = admission, relay, upnp
        self.moved: Callable[[], None] = lambda: None
        self._handlers: dict[str, StreamHandler] = {}
        self._inboxes: dict[str, TopicInbox] = {}
        self._nursery: trio.Nursery | None = None
        self._live: _Live | None = None

    @property
    def peer(self) -> str:
        return self._key.peer

    def addresses(self) -> tuple[str, ...]:
        if self._live is None:
            return ()
        own = [str(address) for address in self._live.host.get_addrs()]
        return tuple(dict.fromkeys((*own, *self._live.reach.addresses())))

    def peers(self) -> tuple[str, ...]:
        return self._live.dialer.peers() if self._live else ()

    def connected(self) -> tuple[str, ...]:
        return self._live.dialer.connected() if self._live else ()

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        started = False

        def report() -> None:
            nonlocal started
            if not started:
                started = True
                task_status.started()

        while True:
            try:
                await self._serve_once(report)
            except* Exception as failed:
                if not started:
                    raise
                log.exception("libp2p failed; starting it again", exc_info=failed)
            await trio.sleep(RESTART_S)

    async def _serve_once(self, report: Callable[[], None]) -> None:
        stop = trio.Event()
        async with trio.open_nursery() as hosts:
            try:
                await hosts.start(self._run_host, stop)
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._start_services(nursery)
                    report()
                    await trio.sleep_forever()
            finally:
                self._nursery = None
                stop.set()

    async def _run_host(self, stop: trio.Event, *, task_status: TaskStatus[None]) -> None:
        """Run one host until `stop`. Shielded: it is cancelled in order, sockets last, within `SHUTDOWN_S`."""
        live = _Live(self._key, self._psk, self._rank, self._admission)
        with trio.CancelScope(shield=True) as scope:
            try:
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(background_trio_service(live.host.get_network()))
                    stack.push_async_callback(shut_down, live.host, scope)
                    self._listen = await listen(live.host, self._listen)
                    await stack.enter_async_context(live.records.serve())
                    await stack.enter_async_context(live.gossip.serve())
                    await self._serve_streams(live, stop, task_status)
            finally:
                self._live = None

    async def _serve_streams(self, live: _Live, stop: trio.Event, task_status: TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            live.nursery = nursery
            for protocol, handler in self._handlers.items():
                live.host.set_stream_handler(TProtocol(protocol), partial(self._accept, live, protocol, handler))
            if live.door:
                live.host.set_stream_handler(INTRODUCTION, live.door.answer_again)
            if self._lane:
                self._start_lanes(live)
            self._start_reach(live)
            self._live = live
            task_status.started()
            await stop.wait()
            nursery.cancel_scope.cancel()

    def _start_services(self, nursery: trio.Nursery) -> None:
        for address in self._bootstrap:
            nursery.start_soon(keep_connected, self, address)
        for topic, inbox in self._inboxes.items():
            self._start_topic(nursery, topic, inbox)
        if self._mdns and self._live:
            nursery.start_soon(mdns.serve, self._live.host, self._found)

    def _start_topic(self, nursery: trio.Nursery, topic: str, inbox: TopicInbox) -> None:
        nursery.start_soon(inbox.serve)
        nursery.start_soon(self._need_live().gossip.listen, topic, inbox)

    async def _found(self, peer: str, addresses: tuple[str, ...]) -> None:
        dialer = self._need_live().dialer
        dialer.hint(peer, addresses)
        try:
            await dialer.reach(peer)
        except PeerUnreachableError as error:
            log.info("found on the local network, but not reached: %s", error)

    async def _accept(self, live: _Live, protocol: str, handler: StreamHandler, raw: Any) -> None:
        """Called by libp2p for an incoming stream; it is over for libp2p when this returns."""
        peer = str(raw.muxed_conn.peer_id)
        if self._nursery is None or _is_full(live, peer):
            await raw.reset()
            return
        stream = _adopt(live, MuxedPipe(raw), peer, protocol)
        self._nursery.start_soon(run_handler, handler, stream, protocol)
        await stream.run()

    def _start_lanes(self, live: _Live) -> None:
        swarm = live.host.get_network()
        live.lanes = swarm.lanes = lanes = Lanes(self._key, live.dialer, frozenset(self._handlers))

        async def answer(raw: Any) -> None:
            # Not counted as a stream: it lasts for one question, and a peer at its limit could not ask.
            stream = FramedStream(MuxedPipe(raw), str(raw.muxed_conn.peer_id))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run)
                await lanes.answer(stream)
                await stream.aclose()

        live.host.set_stream_handler(TProtocol(LANE_PROTOCOL), answer)
        swarm.serve_lane = partial(self._serve_lane, live, lanes)

    def _start_reach(self, live: _Live) -> None:
        live.reach = reach = Reach(live.host, live.dialer, self._key, _port_for_others(self._listen), self._relay)

        def moved() -> None:
            reach.forget()
            live.remap()
            self.moved()

        async def answer(raw: Any) -> None:
            # Not counted as a stream, as those of lanes.
            stream = FramedStream(MuxedPipe(raw), str(raw.muxed_conn.peer_id))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run)
                await reach.answer(stream)
                await stream.aclose()

        live.host.set_stream_handler(TProtocol(REACH_PROTOCOL), answer)
        live.host.get_network().probed = reach.probes.arrived
        reach.through.nursery, live.dialer.through = live.nursery, reach.through.bring
        reach.changed = lambda: self.moved()
        live.nursery.start_soon(reach.serve)
        live.nursery.start_soon(roaming.serve, live.host, moved)
        live.nursery.start_soon(_close_idle_circuits, live)
        live.nursery.start_soon(_weed_connections, live)
        if self._upnp and reach.port:
            live.nursery.start_soon(_map_port, live)

    async def _serve_lane(self, live: _Live, lanes: Lanes, lane: Lane) -> None:
        """Called by the swarm for a lane that a peer opened; it is over when this returns."""
        try:
            if self._nursery is None or not self._admits(lane.peer) or _is_full(live, lane.peer):
                return
            stream = _adopt(live, lane.pipe, lane.peer, lane.protocol)
            self._nursery.start_soon(run_handler, self._handlers[lane.protocol], stream, lane.protocol)
            await stream.run()
        finally:
            lanes.tickets.ended(lane.peer)

    async def report(self, question: AskReach) -> ReachReport:
        return await self._need_live().reach.report(question)

    async def connect(self, address: str) -> str:
        live = self._need_live()
        peer = await live.dialer.connect(address)
        await live.records.connected(peer)
        return str(peer)

    def _admits(self, peer: str) -> bool:
        return self._admission is None or self._admission.admits(peer)

    async def disconnect(self, peer: str) -> None:
        live = self._live
        if live is None:
            return
        async with trio.open_nursery() as nursery:
            for stream in tuple(live.streams.get(peer, ())):
                nursery.start_soon(stream.aclose)
            await live.dialer.disconnect(peer)

    def learn(self, peer: str, addresses: tuple[str, ...]) -> None:
        if self._live and peer != self.peer:
            self._live.dialer.learn(peer, addresses)

    async def open(self, peer: str, protocol: str) -> FramedStream:
        live = self._need_live()
        if _is_full(live, peer):
            raise PeerUnreachableError(f"{STREAMS_PER_PEER_MAX} streams with {peer} are open; close some first")
        await live.dialer.reach(peer)
        if not self._admits(peer):
            raise NotAdmittedError(f"{peer} is no member of this mesh, or not any more")
        live.check_budget(peer, protocol)
        pipe = await live.lanes.open(peer, protocol) if live.lanes and live.dialer.can_be_dialled(peer) else None
        stream = _adopt(live, pipe or MuxedPipe(await live.dialer.open(peer, protocol)), peer, protocol)
        live.nursery.start_soon(stream.run)
        return stream

    def carries(self, peer: str, protocol: str) -> int | None:
        live = self._live
        if live is None or not live.dialer.is_relayed(peer):
            return None
        return max(0, live.budgets[peer].get(protocol, Budget()).left)

    async def publish(self, topic: str, data: bytes) -> None:
        await self._need_live().gossip.publish(topic, data)

    async def subscribe(self, topic: str, handler: TopicHandler) -> None:
        await trio.lowlevel.checkpoint()
        if topic in self._inboxes:
            raise TransportError(f"{topic} is already subscribed")
        self._inboxes[topic] = TopicInbox(topic, handler)
        if self._nursery is not None:
            self._start_topic(self._nursery, topic, self._inboxes[topic])

    async def put_record(self, key: str, value: bytes) -> None:
        await self._need_live().records.put(key, value)

    async def get_record(self, key: str) -> bytes | None:
        return await self._need_live().records.get(key)

    async def provide(self, key: str) -> None:
        await self._need_live().records.provide(key)

    async def find_providers(self, key: str, count: int = 20) -> tuple[str, ...]:
        found = await self._need_live().records.find_providers(key)
        found.pop(self.peer, None)
        for peer, addresses in found.items():
            self._need_live().dialer.hint(peer, addresses)
        return some(list(found), count)

    def _need_live(self) -> _Live:
        if self._live is None:
            raise PeerUnreachableError("this node is not on the mesh: its transport is stopped, or starts again now")
        return self._live


def _port_for_others(listen: tuple[str, ...]) -> int:
    """The port on which we listen for other machines by IPv4, which is what has routers that translate; 0 if none."""
    for address in listen:
        match address.split("/")[1:5]:
            case ["ip4", host, "tcp", port] if not host.startswith("127."):
                return int(port)
    return 0


async def _weed_connections(live: _Live) -> None:
    while True:
        await live.host.get_network().news.wait()
        await live.dialer.weed(REACH_PROTOCOL)


async def _map_port(live: _Live) -> None:
    """Have the router pass our port on; another router, when we moved."""
    while True:
        with trio.CancelScope() as scope:
            live.remap = scope.cancel
            await mapping.serve(live.reach.port, live.reach.map)


async def _close_idle_circuits(live: _Live) -> None:
    """Relays are for what is under way: the next stream finds its way anew, and perhaps a direct one."""
    idle: dict[str, float] = {}
    while True:
        await trio.sleep(CIRCUIT_IDLE_S / 4)
        relayed = [
            peer for peer in live.dialer.connected() if live.dialer.is_relayed(peer) and peer not in live.streams
        ]
        for peer in [peer for peer in live.budgets if peer not in live.dialer.connected()]:
            del live.budgets[peer]
        idle = {peer: idle.get(peer, trio.current_time()) for peer in relayed}
        for peer, since in idle.items():
            if trio.current_time() - since >= CIRCUIT_IDLE_S:
                live.budgets.pop(peer, None)
                await live.dialer.disconnect(peer)


def _is_full(live: _Live, peer: str) -> bool:
    return len(live.streams.get(peer, ())) >= STREAMS_PER_PEER_MAX


def _adopt(live: _Live, pipe: Pipe, peer: str, protocol: str) -> FramedStream:
    if live.dialer.is_relayed(peer):
        pipe = RelayedPipe(pipe, live.budgets[peer].setdefault(protocol, Budget()))

    def ended() -> None:
        live.streams[peer].discard(stream)
        if not live.streams[peer]:
            del live.streams[peer]

    stream = FramedStream(pipe, peer, ended)
    live.streams[peer].add(stream)
    return stream
