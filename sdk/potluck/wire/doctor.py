"""What `potluck doctor` prints: one finding for each thing that a machine has or lacks; and what it asks a running
node."""

from __future__ import annotations

from typing import Literal

import msgspec

from potluck.wire.common import Message


class Finding(msgspec.Struct, frozen=True):
    """`state` is "good", "weak" (works, with less) or "missing" (something cannot be done at all).

    `says` is what was found; `means` what follows for the owner or callers; `fix` the one command that improves it.
    """

    about: str
    state: Literal["good", "weak", "missing"]
    says: str
    means: str = ""
    fix: str = ""


class AskReach(Message, frozen=True):
    """How do others reach you? Answered by `ReachReport`. With `measure`, some MiB are sent to a peer."""

    question: int
    measure: bool = False


class Upload(msgspec.Struct, frozen=True, array_like=True):
    """What was measured: so many bytes reached a peer within so many microseconds."""

    peer: str
    sent_bytes: int
    took_us: int


class ReachReport(Message, frozen=True):
    """`kind` is what stands in front of the node (`core.reach.Kind`), as `observers` peers saw it; `endpoints` (host,
    port) are where they got in; `relays` how many peers pass on what others ask of it; `port` is that on which it
    listens for others, 0 for none. `connected` counts peers, and `relayed` those of them that are reached through
    relays alone.
    """

    question: int
    kind: str
    endpoints: tuple[tuple[str, int], ...] = ()
    observers: int = 0
    relays: int = 0
    port: int = 0
    connected: int = 0
    relayed: int = 0
    upload: Upload | None = None
