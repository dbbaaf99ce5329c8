"""What becomes of an image's build when the owner wants the machine. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from potluck_node.core import provider_events as ev


@dataclass(frozen=True, slots=True)
class Warned:
    """It may go on for so long."""

    why: str
    grace_us: int


@dataclass(frozen=True, slots=True)
class Ended:
    """It ends now."""

    why: str


def heed(event: object, ours: bool, gpus: Collection[str]) -> Warned | Ended | None:
    """What an event of the provider's core means for a build that holds these GPUs. `ours`: whoever sits at a machine
    may use it, so what the node builds for itself goes on, unless the owner stops all."""
    if isinstance(event, ev.GpusBlocked):
        return None if ours else _of_gpus(event, gpus)
    if not isinstance(event, ev.Paused | ev.GraceBegan) or (ours and not event.own):
        return None
    if isinstance(event, ev.GraceBegan):
        return Warned(event.reason, event.grace_us)
    return Ended(event.reason) if event.now else None


def _of_gpus(event: ev.GpusBlocked, gpus: Collection[str]) -> Warned | Ended | None:
    states = dict(event.states)
    mine = sorted(states.keys() & set(gpus), key=lambda uuid: uuid not in event.end)
    if not mine:
        return None
    why = f"its GPU is {states[mine[0]].removeprefix('is ')}"
    return Ended(why) if mine[0] in event.end else Warned(why, event.grace_us)
