"""What both transports do alike: run handlers so that nothing escapes, deliver gossip, stay connected."""

from __future__ import annotations

import logging
import random
from contextlib import suppress

import trio

from potluck_node.transport.interface import (
    PeerUnreachableError,
    Stream,
    StreamClosedError,
    StreamHandler,
    TopicHandler,
    Transport,
)

log = logging.getLogger("potluck.transport")

# Streams open at once with one peer, both directions together. Above this py-libp2p's Yamux refuses; ours are
# few and long.
STREAMS_PER_PEER_MAX = 200

# Gossip waiting for its handler. Offers come every few seconds from each node; whatever is lost is sent again
# soon.
TOPIC_QUEUE_MAX = 1024

# Bootstrap addresses are dialled for ever. The first retry comes quickly (a node that restarts), the cap
# keeps a mesh whose bootstrap node is away from hammering it, and the jitter keeps a thousand nodes from
# returning at the same instant.
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
BACKOFF_JITTER = 0.3

# How often a live bootstrap connection is looked at, seconds.
BOOTSTRAP_CHECK_S = 1.0


async def run_handler(handler: StreamHandler, stream: Stream, protocol: str) -> None:
    """Run a handler for the life of its stream. Whatever it raises ends that stream only."""
    try:
        await handler(stream)
    except* StreamClosedError as closed:
        log.debug("stream %s of %s ended: %s", protocol, stream.peer, closed.exceptions[0])
    except* Exception as failed:
        log.exception("the handler of %s for %s failed", protocol, stream.peer, exc_info=failed)
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()


class TopicInbox:
    """Messages of one topic on their way to its handler. When the handler is slow, new ones are dropped."""

    def __init__(self, topic: str, handler: TopicHandler) -> None:
        self._topic, self._handler = topic, handler
        self._send, self._receive = trio.open_memory_channel[tuple[str, bytes]](TOPIC_QUEUE_MAX)

    def put(self, peer: str, data: bytes) -> None:
        with suppress(trio.WouldBlock, trio.BrokenResourceError):
            self._send.send_nowait((peer, data))

    async def serve(self) -> None:
        async for peer, data in self._receive:
            try:
                await self._handler(peer, data)
            except* Exception as failed:
                log.exception("the handler of topic %s failed", self._topic, exc_info=failed)


def backoff_s(failures: int, draw: float) -> float:
    """Seconds to wait after `failures` failed dials in a row; `draw` in [0, 1) places it in the jitter."""
    delay = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16))
    return delay * (1 + BACKOFF_JITTER * (2 * draw - 1))


async def keep_connected(transport: Transport, address: str) -> None:
    """Dial `address` now and whenever its connection is gone, until cancelled. Never raises
    `PeerUnreachableError`.
    """
    peer = address.rpartition("/p2p/")[2]
    failures = 0
    while True:
        if peer in transport.peers():
            await trio.sleep(BOOTSTRAP_CHECK_S)
            continue
        try:
            await transport.connect(address)
            failures = 0
        except PeerUnreachableError as error:
            failures += 1
            log.info("bootstrap peer %s, attempt %d: %s", address, failures, error)
            await trio.sleep(backoff_s(failures, random.random()))


def some(found: list[str], count: int) -> tuple[str, ...]:
    """All, or so many of them by chance: the first ones alone would be asked by everybody."""
    return tuple(found if len(found) <= count else random.sample(found, count))
