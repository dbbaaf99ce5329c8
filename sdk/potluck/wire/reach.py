"""How nodes behind routers are found out, called and relayed, on the stream `/potluck/reach/1`.

One question for each stream. `Knock` and `Circuit` go to a relay, which passes them on to the other peer on a stream of
its own; after `CircuitOpen` the rest of both streams is joined: what the relay sees is Noise, end to end.

Probes prove that a connection comes or gets through: a bare TCP connection that begins with `MAGIC` and a nonce which
was agreed on such a stream. See docs/decisions/reach.md.
"""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message

# As long as that of lanes, and as different from what libp2p says first.
MAGIC = b"\x00PREACH\x00"
NONCE_BYTES = 16

# Addresses of one peer that another one is asked to dial.
ENDPOINTS_MAX = 4

# What both ends of a circuit write on it: bytes of the connection, or how many of them were read.
CIRCUIT_DATA, CIRCUIT_READ = b"\x00", b"\x01"
# Bytes of one piece, and of all that were sent and not read yet. A relay holds no more than that for each direction.
CIRCUIT_PIECE_BYTES, CIRCUIT_WINDOW_BYTES = 32 << 10, 128 << 10


# What is sent to a peer to measure how fast we send, at most, and in which pieces; bytes.
SWALLOWED_BYTES_MAX, SWALLOWED_PIECE_BYTES = 4 << 20, 64 << 10


class Observe(Message, frozen=True):
    """Where do my connections come from? Answered by `Ticket`; after its probe came, by `Observed`."""


class Ticket(Message, frozen=True):
    """The nonce of the probe that is to come, from the port that the asker listens on."""

    nonce: bytes


class Observed(Message, frozen=True):
    """Where the probe came from."""

    host: str
    port: int


class DialBack(Message, frozen=True):
    """Send probes with `nonce` to these ports of the address from which I am connected to you."""

    ports: tuple[int, ...]
    nonce: bytes


class DialledBack(Message, frozen=True):
    """To which address, and the ports that took it."""

    host: str
    ports: tuple[int, ...]


class Reserve(Message, frozen=True):
    """Pass on to me what others ask of me, as long as we are connected."""


class Reserved(Message, frozen=True):
    """For so long, seconds; ask again before."""

    lasts_s: int


class Knock(Message, frozen=True):
    """To a relay: hand `words` to `peer`. Answered by `Knocked`."""

    peer: str
    words: bytes


class Knocking(Message, frozen=True):
    """From a relay: `peer` sends these words. Answered by `Knocked`."""

    peer: str
    words: bytes


class Knocked(Message, frozen=True):
    words: bytes


class Circuit(Message, frozen=True):
    """To a relay: join this stream with one to `peer`. Answered by `CircuitOpen`."""

    peer: str


class Incoming(Message, frozen=True):
    """From a relay: `peer` is at the other end of this stream, if you like. Answered by `CircuitOpen`."""

    peer: str


class CircuitOpen(Message, frozen=True):
    pass


class Swallow(Message, frozen=True):
    """Frames follow, `SWALLOWED_BYTES_MAX` in all at most, then an empty one. Answered by `Swallowed`."""


class Swallowed(Message, frozen=True):
    """So many bytes came."""

    size: int


class ReachRefused(Message, frozen=True):
    """In place of any other answer."""

    why: str


class Here(msgspec.Struct, frozen=True, array_like=True):
    """What two peers tell each other in a knock, as the body of an envelope (`potluck/reach/1`) that they sign.

    `to` is whom it is for, `nonce` the asker's in both. `endpoints` (host, port) may be dialled; `kind` is what its
    router does (`core.reach.Kind`). `issued_us` is Unix time in microseconds.
    """

    to: str
    nonce: bytes
    issued_us: int
    kind: str
    endpoints: tuple[tuple[str, int], ...] = ()


Question = Observe | DialBack | Reserve | Knock | Knocking | Circuit | Incoming | Swallow
Answer = Ticket | Observed | DialledBack | Reserved | Knocked | CircuitOpen | Swallowed | ReachRefused
