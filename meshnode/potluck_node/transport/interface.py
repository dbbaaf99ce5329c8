"""The transport seam. Nothing above it knows how peers are reached; nothing below it knows what they say.

Implementations: `memory.MemoryTransport` (tests, local lease) and `libp2p.Libp2pTransport`. Both pass
`tests/conformance/check_transport.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import trio

from potluck.wire.doctor import AskReach, ReachReport

if TYPE_CHECKING:
    # libp2p brings in the package trio-stubs, which hides trio's own newer types, this one among them.
    from trio_typing import TaskStatus

# How long opening a connection may take before the peer counts as unreachable, seconds. A wrong pre-shared
# key is noticed by libp2p only after 30-40 s; nobody waits that long for a call.
CONNECT_TIMEOUT_S = 5.0

# The largest frame that a transport carries, bytes. Larger messages are cut by the layer above, where credit
# is counted.
TRANSPORT_FRAME_BYTES_MAX = 1 << 20


class TransportError(Exception):
    """Base of everything a transport raises."""


class PeerUnreachableError(TransportError):
    """No address of the peer answers, or the handshake failed; the text says which was tried and why it
    failed.
    """


class StreamClosedError(TransportError):
    """The other side closed or reset the stream, or its connection is gone."""


class NotAdmittedError(PeerUnreachableError):
    """The peer is no member of this mesh, or does not take us for one."""


class FrameTooLargeError(TransportError):
    """A frame over `TRANSPORT_FRAME_BYTES_MAX` was to be sent, or announced by the other side."""


class Stream(Protocol):
    """A bidirectional sequence of whole frames with an authenticated peer at the other end."""

    @property
    def peer(self) -> str:
        """Peer id of the other side, proved by the handshake."""
        ...

    async def send(self, frame: bytes) -> None:
        """Send one whole frame. Concurrent senders are serialised. A cancelled send has either sent the whole
        frame or nothing; the stream stays usable. Raises `StreamClosedError`, `FrameTooLargeError`.
        """
        ...

    async def receive(self) -> bytes:
        """The next frame. Raises `StreamClosedError` at the end; cancelling loses nothing."""
        ...

    async def aclose(self) -> None:
        """Close both directions; never raises, never blocks for long."""
        ...


# Runs for the life of one incoming stream. Whatever it raises ends that stream only.
StreamHandler = Callable[[Stream], Awaitable[None]]
# Receives (sender's peer id, data) of a published message; must not block for long.
TopicHandler = Callable[[str, bytes], Awaitable[None]]
# Checks one DHT record: (key, value) → its rank (higher wins), or None when it is invalid or expired.
RecordRank = Callable[[str, bytes], int | None]


class Admission(Protocol):
    """Who may be on a private mesh. Both ways to be introduced get a stream on which nothing else is said; they raise
    `NotAdmittedError`, or return, after which `admits` says yes."""

    def admits(self, peer: str) -> bool:
        """Whether the peer is a member now. Looked up for each stream."""
        ...

    async def introduce(self, stream: Stream) -> None:
        """We dialled."""
        ...

    async def answer(self, stream: Stream) -> None:
        """They dialled."""
        ...


class Transport(Protocol):
    """One node's presence on the mesh."""

    # Called when `addresses` changed.
    moved: Callable[[], None]

    @property
    def peer(self) -> str:
        """Our own peer id."""
        ...

    def addresses(self) -> tuple[str, ...]:
        """Addresses (multiaddrs ending in /p2p/<peer>) on which others can dial us; empty before `serve` has
        started.
        """
        ...

    def peers(self) -> tuple[str, ...]:
        """Peers with a live connection."""
        ...

    def connected(self) -> tuple[str, ...]:
        """As `peers`, with those that are not admitted, or not any more."""
        ...

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Serve incoming streams of `protocol`. To be called before `serve`."""
        ...

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, dial the bootstrap addresses (for ever, with back-off), take part in DHT and gossip, until
        cancelled.
        """
        ...

    async def report(self, question: AskReach) -> ReachReport:
        """How others reach this node, as far as that is known."""
        ...

    async def connect(self, address: str) -> str:
        """Dial one multiaddr that ends in /p2p/<peer>; returns the peer id. Raises `PeerUnreachableError`
        within `CONNECT_TIMEOUT_S`.
        """
        ...

    async def disconnect(self, peer: str) -> None:
        """End all connections and streams with a peer."""
        ...

    def learn(self, peer: str, addresses: tuple[str, ...]) -> None:
        """Remember where `peer` says it can be dialled (from a verified offer)."""
        ...

    async def open(self, peer: str, protocol: str) -> Stream:
        """Open a stream to a peer that is connected or whose addresses are known. Raises
        `PeerUnreachableError`.
        """
        ...

    def carries(self, peer: str, protocol: str) -> int | None:
        """Bytes that streams of a protocol may still carry to and from a peer; None where nothing limits them, as
        everywhere but through a relay.
        """
        ...

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data` to all subscribers of `topic`; best effort."""
        ...

    async def subscribe(self, topic: str, handler: TopicHandler) -> None:
        """Call `handler` for each message on `topic` from others. Once per topic."""
        ...

    async def put_record(self, key: str, value: bytes) -> None:
        """Store a record in the DHT under `/potluck/<key>`. Best effort: with no peers it stays local."""
        ...

    async def get_record(self, key: str) -> bytes | None:
        """The best valid record under the key, or None."""
        ...

    async def provide(self, key: str) -> None:
        """Announce in the DHT that we provide `key` (an index: per mesh, GPU model, image, warm function)."""
        ...

    async def find_providers(self, key: str, count: int = 20) -> tuple[str, ...]:
        """Peers that announced `key`: all, or `count` of them, others each time. Their addresses are learned on the
        way."""
        ...
