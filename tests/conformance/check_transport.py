"""What every transport promises. No pytest in here: any implementation, anywhere, can be held against it.

Each check takes a world: `async with world() as (a, b, c)` gives three served transports. b is connected to a and to c;
a and c know each other only through b.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio
import trio.testing

from potluck.wire.doctor import AskReach
from potluck_node.transport.interface import (
    TRANSPORT_FRAME_BYTES_MAX,
    FrameTooLargeError,
    PeerUnreachableError,
    Stream,
    StreamClosedError,
    Transport,
)

# The protocols that a world has to serve, with the handlers below.
ECHO = "/potluck/test/echo/1"
BURST = "/potluck/test/burst/1"
RAISE = "/potluck/test/raise/1"
SILENT = "/potluck/test/silent/1"

# A peer id that nobody has: the key is all zeros but one.
NOBODY = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

# Generous: gossip meshes and DHT tables need some rounds to form on a busy machine.
SETTLE_S = 30.0

World = Callable[[], AbstractAsyncContextManager[tuple[Transport, Transport, Transport]]]


async def echo(stream: Stream) -> None:
    """Return each frame; on b"close", close."""
    while (frame := await stream.receive()) != b"close":
        await stream.send(frame)


async def burst(stream: Stream) -> None:
    """On a number, send that many frames at once and close."""
    for index in range(int(await stream.receive())):
        await stream.send(b"%d" % index)


async def fail(stream: Stream) -> None:
    raise ValueError(f"meant to fail, for {stream.peer}")


async def silent(stream: Stream) -> None:
    """Read nothing until the peer has gone."""
    await trio.sleep_forever()


HANDLERS = {ECHO: echo, BURST: burst, RAISE: fail, SILENT: silent}


async def ended(stream: Stream) -> str:
    """The reason why `receive` says that the stream is at its end."""
    try:
        while True:
            await stream.receive()
    except StreamClosedError as closed:
        return str(closed)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds. Raises `trio.TooSlowError` after `SETTLE_S`."""
    with trio.fail_after(SETTLE_S):
        while not condition():
            await trio.sleep(0.05)


async def check_report(world: World) -> None:
    """A node says how others reach it, as far as it knows, to whoever asks."""
    async with world() as (_, b, __):
        found = await b.report(AskReach(7))
        assert (found.question, found.connected) == (7, 2)


async def check_echo(world: World) -> None:
    """A stream carries frames both ways, in order, and each end knows who the other is."""
    async with world() as (a, b, _):
        assert b.peer in a.peers()
        assert a.peer in b.peers()
        stream = await a.open(b.peer, ECHO)
        assert stream.peer == b.peer
        # No relay is in between.
        assert a.carries(b.peer, ECHO) is None
        for frame in (b"", b"one", b"two" * 1000):
            await stream.send(frame)
            assert await stream.receive() == frame
        await stream.aclose()


async def check_many_streams(world: World) -> None:
    """Streams do not mix, in either direction."""
    async with world() as (a, b, _), trio.open_nursery() as nursery:

        async def talk(here: Transport, there: Transport, number: int) -> None:
            stream = await here.open(there.peer, ECHO)
            for turn in range(5):
                await stream.send(b"%d:%d" % (number, turn))
                assert await stream.receive() == b"%d:%d" % (number, turn)
            await stream.aclose()

        for number in range(32):
            nursery.start_soon(talk, *((a, b) if number % 2 else (b, a)), number)


async def check_concurrent_senders(world: World) -> None:
    """Frames of concurrent senders arrive whole."""
    async with world() as (a, b, _):
        stream = await a.open(b.peer, ECHO)
        frames = [bytes([number]) * 100_000 for number in range(16)]
        async with trio.open_nursery() as nursery:
            for frame in frames:
                nursery.start_soon(stream.send, frame)
            assert sorted([await stream.receive() for _ in frames]) == frames
        await stream.aclose()


async def check_frame_limit(world: World) -> None:
    """The largest frame passes; a larger one is refused here and harms nothing."""
    async with world() as (a, b, _):
        stream = await a.open(b.peer, ECHO)
        try:
            await stream.send(bytes(TRANSPORT_FRAME_BYTES_MAX + 1))
        except FrameTooLargeError:
            pass
        else:
            raise AssertionError("a frame over the limit was sent")
        largest = bytes(range(256)) * (TRANSPORT_FRAME_BYTES_MAX // 256)
        await stream.send(largest)
        assert await stream.receive() == largest
        await stream.aclose()


async def check_close(world: World) -> None:
    """What was sent before a close is still read; then the end is reported, again and again, with a reason."""
    async with world() as (a, b, _):
        stream = await a.open(b.peer, BURST)
        await stream.send(b"50")
        assert [await stream.receive() for _ in range(50)] == [b"%d" % index for index in range(50)]
        assert await ended(stream)
        assert await ended(stream)
        await stream.aclose()
        await stream.aclose()
        try:
            await stream.send(b"late")
        except StreamClosedError:
            return
        raise AssertionError("a closed stream accepted a frame")


async def check_close_wakes_reader(world: World) -> None:
    """Closing a stream here ends a `receive` that waits on it."""
    async with world() as (a, b, _):
        stream = await a.open(b.peer, SILENT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ended, stream)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.aclose()


async def check_cancelled_receive(world: World) -> None:
    """A cancelled `receive` loses nothing."""
    async with world() as (a, b, _):
        stream = await a.open(b.peer, ECHO)
        for number in range(20):
            with trio.move_on_after(0):
                await stream.receive()
            await stream.send(b"%d" % number)
            with trio.move_on_after(0.0005) as scope:
                assert await stream.receive() == b"%d" % number
            if scope.cancelled_caught:
                assert await stream.receive() == b"%d" % number
        await stream.aclose()


async def check_cancelled_send(world: World) -> None:
    """A cancelled `send` has sent all or nothing, and the stream works on."""
    async with world() as (a, b, _):
        stream = await a.open(b.peer, ECHO)
        sent = []
        for number in range(30):
            frame = bytes([number]) * 200_000
            with trio.move_on_after(0.0003 * (number % 5)):
                await stream.send(frame)
                sent.append(frame)
        await stream.send(b"last")
        received = []
        while (frame := await stream.receive()) != b"last":
            received.append(frame)
        assert all(len(frame) == 200_000 and len(set(frame)) == 1 for frame in received)
        assert [frame for frame in received if frame in sent] == sent
        await stream.aclose()


async def check_handler_errors(world: World) -> None:
    """A handler that raises ends its own stream and nothing else."""
    async with world() as (a, b, _):
        witness = await a.open(b.peer, ECHO)
        for _ in range(3):
            assert await ended(await a.open(b.peer, RAISE))
        await witness.send(b"still here")
        assert await witness.receive() == b"still here"
        await witness.aclose()


async def check_unreachable(world: World) -> None:
    """Unknown peers, dead addresses, nonsense and unknown protocols give one clear error."""
    async with world() as (a, b, _):
        attempts = [
            lambda: a.open(NOBODY, ECHO),
            lambda: a.open(b.peer, "/potluck/test/unknown/1"),
            lambda: a.connect(f"/ip4/127.0.0.1/tcp/9/p2p/{NOBODY}"),
            lambda: a.connect("nonsense"),
            lambda: a.connect(a.addresses()[0]),
        ]
        for attempt in attempts:
            try:
                with trio.fail_after(SETTLE_S):
                    await attempt()
            except PeerUnreachableError as error:
                text = str(error)
            else:
                raise AssertionError("an unreachable peer was reached")
            assert len(text) > 20


async def check_learn(world: World) -> None:
    """`open` dials a peer whose addresses were learned."""
    async with world() as (a, _, c):
        assert c.peer not in a.peers()
        a.learn(c.peer, c.addresses())
        stream = await a.open(c.peer, ECHO)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        assert c.peer in a.peers()
        await stream.aclose()


async def check_topic(world: World) -> None:
    """A message reaches subscribers that only a third node connects, with its author; late ones get later messages."""
    async with world() as (a, b, c):
        heard: list[tuple[str, bytes]] = []
        late: list[bytes] = []

        async def on_c(peer: str, data: bytes) -> None:
            heard.append((peer, data))
            if len(heard) == 1:
                raise ValueError("a topic handler that fails")

        async def on_b(peer: str, data: bytes) -> None:
            late.append(data)

        async def nothing(peer: str, data: bytes) -> None:
            raise AssertionError("a node hears itself")

        await a.subscribe("offers", nothing)
        await c.subscribe("offers", on_c)
        await b.subscribe("offers", on_b)
        await _publish_until(a, b"first", lambda: len(heard) > 1)
        assert {peer for peer, _ in heard} == {a.peer}
        assert c.peer not in a.peers()
        await eventually(lambda: late)


async def _publish_until(transport: Transport, data: bytes, done: Callable[[], object]) -> None:
    with trio.fail_after(SETTLE_S):
        while not done():
            await transport.publish("offers", data)
            await trio.sleep(0.2)


async def check_record(world: World) -> None:
    """The best valid record is found through a third node; invalid ones are not. Values are b"<rank>:<text>"."""
    async with world() as (a, b, c):
        assert await a.get_record("nothing") is None
        await a.put_record("gpu/a10g", b"1:old")
        await _until_record(c, "gpu/a10g", b"1:old")
        await a.put_record("gpu/a10g", b"2:new")
        await _until_record(c, "gpu/a10g", b"2:new")
        await b.put_record("gpu/a10g", b"1:stale")
        await b.put_record("gpu/a10g", b"forged")
        assert await c.get_record("gpu/a10g") == b"2:new"
        assert await b.get_record("gpu/a10g") == b"2:new"


async def _until_record(transport: Transport, key: str, value: bytes) -> None:
    with trio.fail_after(SETTLE_S):
        while await transport.get_record(key) != value:
            await trio.sleep(0.1)


def rank(key: str, value: bytes) -> int | None:
    """The record rule that a world has to use: b"<rank>:<text>"; rank 0 stands for expired."""
    head, mark, _ = value.partition(b":")
    return int(head) if mark and head.isdigit() and int(head) > 0 else None


async def check_providers(world: World) -> None:
    """A provider is found through a third node, and can then be dialled."""
    async with world() as (a, _, c):
        assert await c.find_providers("image/none") == ()
        with trio.fail_after(SETTLE_S):
            while a.peer not in await c.find_providers("image/abc"):
                await a.provide("image/abc")
                await trio.sleep(0.1)
        stream = await c.open(a.peer, ECHO)
        await stream.send(b"found")
        assert await stream.receive() == b"found"
        await stream.aclose()


async def check_some_providers(world: World) -> None:
    """Of more than are wanted, others are named each time: none is asked by everybody."""
    async with world() as (a, b, c):
        seen: set[str] = set()
        with trio.fail_after(SETTLE_S):
            while seen != {a.peer, b.peer}:
                await a.provide("image/some")
                await b.provide("image/some")
                for _ in range(10):
                    found = await c.find_providers("image/some", 1)
                    assert len(found) <= 1
                    seen.update(found)
                await trio.sleep(0.5)


CHECKS = (
    check_echo,
    check_many_streams,
    check_concurrent_senders,
    check_frame_limit,
    check_close,
    check_close_wakes_reader,
    check_cancelled_receive,
    check_cancelled_send,
    check_handler_errors,
    check_unreachable,
    check_learn,
    check_topic,
    check_record,
    check_providers,
    check_some_providers,
)
