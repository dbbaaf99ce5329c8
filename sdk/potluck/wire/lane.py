"""How two peers agree on a lane, on the stream `/potluck/lane/1`: one question, one answer, then it is closed.

The lane itself is a TCP connection to the address at which the other side is reached already. It begins with `MAGIC`
and the ticket; then comes TLS, and in it what would be on a stream of `protocol`.
"""

from __future__ import annotations

from potluck.wire.common import Message

# Tells a lane from what libp2p says first: "\x13/multistream/", or 8 random bytes on a private mesh.
MAGIC = b"\x00PLANE1\x00"


class LaneWanted(Message, frozen=True):
    """Ask for one lane that carries `protocol`. `certificate` (DER) is the one that the asking side will show."""

    protocol: str
    certificate: bytes


class LaneGranted(Message, frozen=True):
    """`ticket` is good once, for a few seconds; `certificate` (DER) is the one that the answering side will show."""

    ticket: bytes
    certificate: bytes


class LaneRefused(Message, frozen=True):
    """Not now: use a stream."""

    reason: str
