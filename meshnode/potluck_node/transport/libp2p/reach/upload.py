"""How fast we send: some MiB to a peer that is reached directly, on its word that they came."""

from __future__ import annotations

import trio

from potluck import wire
from potluck.wire import reach as messages
from potluck.wire.doctor import Upload
from potluck_node.core.reach import is_global
from potluck_node.transport.framed import FramedStream
from potluck_node.transport.interface import Stream, TransportError
from potluck_node.transport.libp2p.dial import Dialer
from potluck_node.transport.libp2p.reach import talk

# Sending ends after so long, seconds: a slow line is known by then.
SEND_S = 2.0


async def measure(dialer: Dialer) -> Upload | None:
    """To a peer on the internet if there is one; None when no peer takes it."""
    peers = [peer for peer in dialer.peers() if not dialer.is_relayed(peer)]
    for peer in sorted(peers, key=lambda peer: not is_global(dialer.remote_host(peer) or "")):
        try:
            async with talk.asking(dialer, peer) as stream:
                return await _send(stream, peer)
        except TransportError:
            continue
    return None


async def _send(stream: FramedStream, peer: str) -> Upload:
    begun = trio.current_time()
    await stream.send(wire.encode(messages.Swallow()))
    left = messages.SWALLOWED_BYTES_MAX
    while left and trio.current_time() - begun < SEND_S:
        await stream.send(bytes(messages.SWALLOWED_PIECE_BYTES))
        left -= messages.SWALLOWED_PIECE_BYTES
    await stream.send(b"")
    answer = await talk.hear(stream, messages.Swallowed)
    size = min(answer.size, messages.SWALLOWED_BYTES_MAX - left)
    return Upload(peer, size, max(1, round((trio.current_time() - begun) * 1e6)))


async def swallow(stream: Stream) -> messages.Swallowed:
    """The other side of it. Raises `StreamClosedError`, `trio.TooSlowError`."""
    size = 0
    with trio.fail_after(talk.ANSWER_TIMEOUT_S):
        while size <= messages.SWALLOWED_BYTES_MAX and (frame := await stream.receive()):
            size += len(frame)
    return messages.Swallowed(size)
