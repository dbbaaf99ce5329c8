"""Clients ↔ local node: `potluck bench`. Questions as in `control`."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message
from potluck.wire.offer import Score


class RunBench(Message, frozen=True):
    """Measure this machine anew. Answered by `BenchDone`, or a refusal while functions run."""

    question: int


class BenchDone(Message, frozen=True):
    """What was measured, and of which devices nothing is claimed, with the reason in words."""

    question: int
    scores: tuple[Score, ...]
    left_out: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True):
    """The file in which a node keeps its scores, by the device that each is of; None where nothing could be measured.

    Those of another `workload` cannot be compared with these.
    """

    workload: int
    measured: dict[str, Score | None] = {}
