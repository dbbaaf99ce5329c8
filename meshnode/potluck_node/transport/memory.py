"""A transport within one process: tests, simulations, and a node's lease with itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import trio

from potluck.wire.doctor import AskReach, ReachReport
from potluck_node.transport.common import (
    STREAMS_PER_PEER_MAX,
    TopicInbox,
    keep_connected,
    run_handler,
    some,
)
from potluck_node.transport.interface import (
    CONNECT_TIMEOUT_S,
    TRANSPORT_FRAME_BYTES_MAX,
    FrameTooLargeError,
    PeerUnreachableError,
    RecordRank,
    StreamClosedError,
    StreamHandler,
    TopicHandler,
    TransportError,
)
from potluck_node.transport.queue import FrameQueue

if TYPE_CHECKING:
    from trio_typing import TaskStatus


class MemoryStream:
    """One end of a stream; `peer` is the other end."""

    def __init__(self, peer: str, incoming: FrameQueue, outgoing: FrameQueue) -> None:
        self._peer, self._incoming, self._outgoing = peer, incoming, outgoing
        self._sending = trio.Lock()

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: bytes) -> None:
        if len(frame) > TRANSPORT_FRAME_BYTES_MAX:
            raise FrameTooLargeError(f"a frame of {len(frame)} bytes is over the limit of {TRANSPORT_FRAME_BYTES_MAX}")
        async with self._sending:
            await self._outgoing.put(bytes(frame))

    async def receive(self) -> bytes:
        return await self._incoming.get()

    async def aclose(self) -> None:
        self._outgoing.close(StreamClosedError("the stream was closed by the other side"))
        self._incoming.close(StreamClosedError("this stream was closed here"), discard=True)

    def hold(self, held: bool) -> None:
        """Freeze or thaw what arrives at this end."""
        self._incoming.hold(held)

    def sever(self) -> None:
        """End both directions as a lost connection does."""
        for queue in (self._incoming, self._outgoing):
            queue.close(StreamClosedError(f"the connection with {self._peer} is gone"), discard=True)

    @property
    def closed(self) -> bool:
        return self._incoming.ended and self._outgoing.ended


def stream_pair(peer_a: str, peer_b: str, delay_s: float = 0.0) -> tuple[MemoryStream, MemoryStream]:
    """Two joined streams: the first is held by `peer_a` (its `.peer` is `peer_b`), the second by `peer_b`."""
    to_a, to_b = FrameQueue(delay_s), FrameQueue(delay_s)
    return MemoryStream(peer_b, to_a, to_b), MemoryStream(peer_a, to_b, to_a)


class MemoryNetwork:
    """Joins `MemoryTransport`s. Links can be cut (noticed at once), silenced (not noticed) and healed."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.nodes: dict[str, MemoryTransport] = {}
        self.links: set[frozenset[str]] = set()
        self._cut: set[frozenset[str]] = set()
        self._silent: set[frozenset[str]] = set()
        self._streams: dict[frozenset[str], list[MemoryStream]] = {}

    def cut(self, a: str, b: str) -> None:
        """Break the link between two nodes: streams end, dials fail."""
        link = frozenset((a, b))
        self._cut.add(link)
        self._disconnect(link)

    def part(self, a: str, b: str) -> None:
        """End the connection of two nodes, which may connect again."""
        self._disconnect(frozenset((a, b)))

    def silence(self, a: str, b: str) -> None:
        """Let nothing through between two nodes and tell nobody, as when a machine is frozen or unplugged."""
        link = frozenset((a, b))
        self._silent.add(link)
        self._hold(link, True)

    def heal(self, a: str, b: str) -> None:
        """Undo `cut` and `silence`."""
        link = frozenset((a, b))
        self._cut.discard(link)
        self._silent.discard(link)
        self._hold(link, False)

    def drop(self, peer: str) -> None:
        """Take a node off the network as if its process was killed; its `serve` may start again later."""
        self.nodes.pop(peer, None)
        for link in [link for link in self.links if peer in link]:
            self._disconnect(link)

    def neighbours(self, peer: str) -> tuple[str, ...]:
        """Peers with a live connection to `peer`."""
        return tuple(sorted(other for link in self.links if peer in link for other in link - {peer}))

    def reachable(self, peer: str) -> Iterator[MemoryTransport]:
        """All nodes that gossip from `peer` gets to, itself included, over links that are not silent."""
        seen, waiting = {peer}, [peer]
        while waiting:
            here = waiting.pop()
            if here in self.nodes:
                yield self.nodes[here]
            for other in self.neighbours(here):
                if other not in seen and frozenset((here, other)) not in self._silent:
                    seen.add(other)
                    waiting.append(other)

    async def link(self, a: str, b: str) -> MemoryTransport:
        """Connect `a` to `b`. Raises `PeerUnreachableError`, for a silent link after `CONNECT_TIMEOUT_S`."""
        link = frozenset((a, b))
        if link in self._silent:
            await trio.sleep(CONNECT_TIMEOUT_S)
        await trio.sleep(self.delay_s)
        if a == b or not link <= self.nodes.keys() or link in self._cut | self._silent:
            raise PeerUnreachableError(f"cannot reach {b} from {a}: no such node, link cut, or no answer")
        self.links.add(link)
        return self.nodes[b]

    def join(self, a: str, b: str) -> tuple[MemoryStream, MemoryStream]:
        """A new stream over an existing link. Raises `PeerUnreachableError` above `STREAMS_PER_PEER_MAX`."""
        link = frozenset((a, b))
        streams = [stream for stream in self._streams.get(link, []) if not stream.closed]
        if len(streams) >= 2 * STREAMS_PER_PEER_MAX:
            raise PeerUnreachableError(f"{STREAMS_PER_PEER_MAX} streams to {b} are open; close some first")
        pair = stream_pair(a, b, self.delay_s)
        self._streams[link] = [*streams, *pair]
        return pair

    def _disconnect(self, link: frozenset[str]) -> None:
        self.links.discard(link)
        for stream in self._streams.pop(link, []):
            stream.sever()

    def _hold(self, link: frozenset[str], held: bool) -> None:
        for stream in self._streams.get(link, []):
            stream.hold(held)


class MemoryTransport:
    """One node on a `MemoryNetwork`. Records, providers and gossip travel over whatever connections there
    are.
    """

    def __init__(
        self, network: MemoryNetwork, peer: str, rank_record: RecordRank, bootstrap: Iterable[str] = ()
    ) -> None:
        self._network, self._peer, self._rank = network, peer, rank_record
        self._bootstrap = tuple(bootstrap)
        self._handlers: dict[str, StreamHandler] = {}
        self._nursery: trio.Nursery | None = None
        self._known: set[str] = set()
        self.moved: Callable[[], None] = lambda: None
        self.inboxes: dict[str, TopicInbox] = {}
        self.records: dict[str, bytes] = {}
        self.provided: set[str] = set()

    @property
    def peer(self) -> str:
        return self._peer

    def carries(self, peer: str, protocol: str) -> int | None:
        return None

    def addresses(self) -> tuple[str, ...]:
        return (f"/memory/p2p/{self._peer}",) if self._nursery else ()

    def peers(self) -> tuple[str, ...]:
        return self._network.neighbours(self._peer)

    def connected(self) -> tuple[str, ...]:
        return self.peers()

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._network.nodes[self._peer] = self
                for inbox in self.inboxes.values():
                    nursery.start_soon(inbox.serve)
                for address in self._bootstrap:
                    nursery.start_soon(keep_connected, self, address)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._network.drop(self._peer)

    async def report(self, question: AskReach) -> ReachReport:
        await trio.lowlevel.checkpoint()
        return ReachReport(question.question, "unknown", connected=len(self.peers()))

    async def connect(self, address: str) -> str:
        _, mark, peer = address.rpartition("/p2p/")
        if not mark or not peer:
            raise PeerUnreachableError(f"{address!r} does not end in /p2p/<peer>")
        with trio.move_on_after(CONNECT_TIMEOUT_S):
            await self._network.link(self._peer, peer)
            return peer
        raise PeerUnreachableError(f"{address} did not answer within {CONNECT_TIMEOUT_S} s")

    async def disconnect(self, peer: str) -> None:
        await trio.lowlevel.checkpoint()
        self._network.part(self._peer, peer)

    def learn(self, peer: str, addresses: tuple[str, ...]) -> None:
        if addresses:
            self._known.add(peer)

    async def open(self, peer: str, protocol: str) -> MemoryStream:
        if peer not in self.peers() and peer not in self._known:
            raise PeerUnreachableError(f"no address of {peer} is known")
        await self.connect(f"/memory/p2p/{peer}")
        mine, theirs = self._network.join(self._peer, peer)
        self._network.nodes[peer].accept(theirs, protocol)
        return mine

    def accept(self, stream: MemoryStream, protocol: str) -> None:
        """Start the handler for a stream that another node opened. Raises `PeerUnreachableError` if there is
        none.
        """
        handler = self._handlers.get(protocol)
        if handler is None or self._nursery is None:
            raise PeerUnreachableError(f"{self._peer} does not serve {protocol}")
        self._nursery.start_soon(run_handler, handler, stream, protocol)

    async def publish(self, topic: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for node in self._network.reachable(self._peer):
            if node is not self and topic in node.inboxes:
                node.inboxes[topic].put(self._peer, data)

    async def subscribe(self, topic: str, handler: TopicHandler) -> None:
        await trio.lowlevel.checkpoint()
        if topic in self.inboxes:
            raise TransportError(f"{topic} is already subscribed")
        self.inboxes[topic] = TopicInbox(topic, handler)
        if self._nursery is not None:
            self._nursery.start_soon(self.inboxes[topic].serve)

    async def put_record(self, key: str, value: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for node in self._network.reachable(self._peer):
            node.store(key, value)

    def store(self, key: str, value: bytes) -> None:
        """Keep a record if it is valid and ranks above the one we hold."""
        rank = self._rank(key, value)
        held = self._rank(key, self.records[key]) if key in self.records else None
        if rank is not None and (held is None or rank > held):
            self.records[key] = value

    async def get_record(self, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        values = [node.records[key] for node in self._network.reachable(self._peer) if key in node.records]
        ranked = [(rank, value) for value in values if (rank := self._rank(key, value)) is not None]
        return max(ranked)[1] if ranked else None

    async def provide(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        self.provided.add(key)

    async def find_providers(self, key: str, count: int = 20) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        found = [node.peer for node in self._network.reachable(self._peer) if key in node.provided]
        others = some([peer for peer in found if peer != self._peer], count)
        self._known.update(others)
        return others
