"""A lease's conversation: messages over one stream with credit, heartbeats and a way to notice a dead peer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire.contents import join, split
from potluck.wire.lease import CONTROL, DEAD_AFTER_US, HEARTBEAT_US, Credit, Heartbeat
from potluck_node.clock import Clock
from potluck_node.core.flow import FlowReceiver, FlowSender
from potluck_node.payloads import ROOM, NodeSpool, Room
from potluck_node.transport.interface import Stream, TransportError

# Above this, whoever produces must wait (`drained`): results of a fast worker for a slow caller stay in the worker.
OUTBOX_BYTES_MAX = 16 << 20
# After the last message, how long the other side may take to read it.
FLUSH_TIMEOUT_S = 5.0

# Without room for what the other side has to send, it is granted no credit; looked at so often, for so long. Seconds.
ROOM_CHECK_S, ROOM_WAIT_S = 0.1, 30.0

OnMessage = Callable[[wire.Message], None]
Ready = Callable[[], Awaitable[None]]


class Link(Protocol):
    """One side of a lease's conversation."""

    def post(self, message: wire.Message) -> None:
        """Queue a message; never blocks. Nothing is sent after `finish`."""
        ...

    async def drained(self) -> None:
        """Wait until little enough waits to be sent."""
        ...

    def finish(self) -> None:
        """Send what is queued, then end."""
        ...


class StreamLink:
    """`kind` is the union of messages that the other side may send; each is handed to `on_message`.

    While `ready` waits, nothing more is read: so whoever takes the messages slows down the other side. Where there is
    no `room` for what the other side sends, it waits. After `ROOM_WAIT_S` the conversation ends, or `no_room` is told
    why and sees to its end.
    """

    def __init__(
        self, stream: Stream, kind: Any, on_message: OnMessage, clock: Clock, ready: Ready = trio.lowlevel.checkpoint,
        *, room: Room = ROOM, no_room: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._ready, self._share, self._no_room = ready, room, no_room
        self._stream, self._kind, self._on_message, self._clock = stream, kind, on_message, clock
        self._sender = FlowSender()
        self._receiver = FlowReceiver(make=partial(NodeSpool, room, stream.peer))
        self._wake, self._room = trio.Event(), trio.Event()
        self._starving = trio.Event()
        self._heard_us = clock.now_us()
        self._finishing = self._waiting = False
        self._scope = trio.CancelScope()
        self._why = ""

    def post(self, message: wire.Message) -> None:
        if not self._finishing:
            left, contents = split(message)
            self._sender.post(wire.encode(left), contents, control=isinstance(message, CONTROL))
            self._wake.set()

    async def drained(self) -> None:
        while self._sender.waiting_bytes > OUTBOX_BYTES_MAX and not self._why:
            self._room = trio.Event()
            await self._room.wait()

    def finish(self) -> None:
        self._finishing = True
        self._wake.set()

    async def run(self) -> str:
        """Converse until either side ends; returns why it ended: "" after `finish`, else in words."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._beat)
                    nursery.start_soon(self._wait_for_room)
        finally:
            self._why = self._why or "ended"
            self._room.set()
            self._receiver.close()
            with trio.CancelScope(shield=True):
                await self._stream.aclose()
        return "" if self._why == "ended" else self._why

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._scope.cancel()

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._stream.receive()
                self._heard_us = self._clock.now_us()
                came = self._receiver.feed(frame)
                taken = [self._take(join(wire.decode(body, self._kind), contents)) for body, contents in came]
                if any(taken):
                    self._waiting = True
                    await self._ready()
                    self._waiting, self._heard_us = False, self._clock.now_us()
                self._grant()
        except TransportError as error:
            self._end(str(error) or "the connection ended")
        except RemoteProtocolError as error:
            self._end(f"the peer broke the protocol: {error.what} {error.why}")

    def _grant(self) -> None:
        if self._share.full_for(self._stream.peer):
            self._starving.set()
        elif due := self._receiver.credit_due():
            self.post(Credit(due))

    async def _wait_for_room(self) -> None:
        while True:
            await self._starving.wait()
            if not await self._room_came():
                why = self._share.why_full()
                self._no_room(why) if self._no_room else self._end(f"no room: {why}")
                return
            self._starving = trio.Event()
            self._grant()

    async def _room_came(self) -> bool:
        # Looked at, since room comes back from finalizers, which may run anywhere.
        for _ in range(round(ROOM_WAIT_S / ROOM_CHECK_S)):
            if not self._share.full_for(self._stream.peer):
                return True
            await trio.sleep(ROOM_CHECK_S)
        return False

    def _take(self, message: object) -> bool:
        """Whether the message went to whoever takes them."""
        if isinstance(message, Credit):
            self._sender.grant(message.bytes)
            self._wake.set()
        elif not isinstance(message, Heartbeat):
            assert isinstance(message, wire.Message)
            self._on_message(message)
            return True
        return False

    async def _write(self) -> None:
        try:
            while True:
                while frame := self._sender.frame():
                    await self._stream.send(frame)
                    if self._sender.waiting_bytes <= OUTBOX_BYTES_MAX:
                        self._room.set()
                if self._finishing and not self._sender.waiting_bytes:
                    break
                self._wake = trio.Event()
                with trio.move_on_after(FLUSH_TIMEOUT_S if self._finishing else float("inf")) as waited:
                    await self._wake.wait()
                if waited.cancelled_caught:
                    break
            self._end("ended")
        except TransportError as error:
            self._end(str(error) or "the connection ended")

    async def _beat(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_US / 1e6)
            now_us = self._clock.now_us()
            if now_us - self._heard_us > DEAD_AFTER_US and not self._waiting:
                self._end(f"the peer fell silent for {DEAD_AFTER_US / 1e6:g} s")
                return
            self.post(Heartbeat(now_us))


class LocalLink:
    """A node's lease with itself: what one side posts, the other is handed at once."""

    def __init__(self) -> None:
        self.other: LocalLink | None = None
        self.on_message: OnMessage = lambda message: None
        self.ready: Ready = trio.lowlevel.checkpoint

    def post(self, message: wire.Message) -> None:
        if self.other:
            self.other.on_message(message)

    async def drained(self) -> None:
        if self.other:
            await self.other.ready()

    def finish(self) -> None:
        self.other = None


def local_links() -> tuple[LocalLink, LocalLink]:
    """Two joined ends."""
    one, two = LocalLink(), LocalLink()
    one.other, two.other = two, one
    return one, two
