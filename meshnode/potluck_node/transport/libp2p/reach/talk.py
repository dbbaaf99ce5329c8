"""One question and its answer on the stream `/potluck/reach/1`, and the words that two peers sign for each other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import reach as messages
from potluck_ledger.envelope import EnvelopeError, open_envelope, seal
from potluck_ledger.keys import PrivateKey
from potluck_node.transport.framed import FramedStream
from potluck_node.transport.interface import PeerUnreachableError, Stream, StreamClosedError, TransportError
from potluck_node.transport.libp2p.dial import Dialer
from potluck_node.transport.libp2p.pipe import MuxedPipe

REACH_PROTOCOL = "/potluck/reach/1"
KIND = "potluck/reach/1"

# From a question to its answer, with all that the other side does for it, seconds.
ANSWER_TIMEOUT_S = 6.0

# Between the clocks of two peers, and on the way; older words are those of somebody who repeats them.
AGE_MAX_US = 120_000_000


@asynccontextmanager
async def asking(dialer: Dialer, peer: str) -> AsyncIterator[FramedStream]:
    """A stream to a peer that is connected directly; nobody is dialled for it. Raises `PeerUnreachableError`, also for
    what goes wrong with sockets inside the block, or takes too long there."""
    stream = FramedStream(MuxedPipe(await dialer.open_here(peer, REACH_PROTOCOL)), peer)
    failed: TransportError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        try:
            yield stream
        except TransportError as error:
            failed = error  # raised only outside of the nursery, which would make a group of it
        except trio.TooSlowError:
            failed = PeerUnreachableError(f"{peer} takes too long")
        except OSError as error:
            failed = PeerUnreachableError(f"no way to {peer}, or back: {error}")
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()
    if failed:
        raise failed


async def ask(stream: Stream, question: messages.Question, answer: type[Any]) -> Any:
    """The answer, which has to be of this type. Raises `PeerUnreachableError`."""
    await stream.send(wire.encode(question))
    return await hear(stream, answer)


async def hear(stream: Stream, kind: type[Any]) -> Any:
    """As `ask`, for a further answer."""
    try:
        with trio.fail_after(ANSWER_TIMEOUT_S):
            found = wire.decode(await stream.receive(), messages.Answer)
    except trio.TooSlowError:
        raise PeerUnreachableError(f"{stream.peer} gives no answer within {ANSWER_TIMEOUT_S} s") from None
    except (StreamClosedError, RemoteProtocolError) as error:
        raise PeerUnreachableError(f"{stream.peer} does not answer: {error}") from None
    if isinstance(found, messages.ReachRefused):
        raise PeerUnreachableError(f"{stream.peer} refuses: {found.why:.200}")
    if not isinstance(found, kind):
        raise PeerUnreachableError(f"{stream.peer} answers something else")
    return found


def sign(key: PrivateKey, here: messages.Here) -> bytes:
    return seal(key, KIND, wire.encode(here)).encode()


def check(words: bytes, of: str, to: str) -> messages.Here:
    """What a peer says of itself. Raises `PeerUnreachableError` unless it signed that for us, just now."""
    try:
        envelope = open_envelope(words, KIND)
        here = wire.decode(envelope.body, messages.Here)
    except (EnvelopeError, RemoteProtocolError) as error:
        raise PeerUnreachableError(f"what {of} is said to say cannot be read: {error}") from None
    if envelope.signers != [of] or here.to != to:
        raise PeerUnreachableError(f"{of} did not say that, or not to us")
    if abs(here.issued_us - now_us()) > AGE_MAX_US:
        raise PeerUnreachableError(f"{of} said that long ago, or its clock is wrong")
    return here


def now_us() -> int:
    return time.time_ns() // 1000
