"""Copies of volumes on other peers, on the stream `/potluck/volumes/1`: one request, one answer.

The owner's node asks; who keeps a copy fetches its chunks as those of an image. Credit and heartbeats are those of a
lease.
"""

from __future__ import annotations

from potluck.wire.common import Failure, Message
from potluck.wire.lease import Credit, Heartbeat

# Heads in one answer: as many as a node keeps for one owner.
KEPT_MAX = 1000


class KeepVolume(Message, frozen=True):
    """Keep this version, whose head is signed by who asks, in place of the one before. Answered by `VolumeKept`, once
    all of it is there."""

    envelope: bytes


class AskKept(Message, frozen=True):
    """Answered by `VolumesKept`."""


class DropVolume(Message, frozen=True):
    """The volume with this id was deleted, or is kept elsewhere. Answered by `VolumesKept`."""

    volume: str


class VolumesKept(Message, frozen=True):
    """The heads of what is kept for who asks."""

    envelopes: tuple[bytes, ...] = ()


class VolumeKept(Message, frozen=True):
    volume: str
    version: int


class CopyRefused(Message, frozen=True):
    failure: Failure


ToKeeper = KeepVolume | AskKept | DropVolume | Heartbeat | Credit
FromKeeper = VolumesKept | VolumeKept | CopyRefused | Heartbeat | Credit
