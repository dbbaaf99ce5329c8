"""A recorded node, for those who have none yet: `potluck tui --demo`. Also what the pictures in the docs show.

A recording is gzipped JSON: a line for each answer, with the question and when it was asked. It plays again and again,
with its times moved to now. What it was not asked, it cannot answer. Recorded by `python -m tests.tui.record`.
"""

from __future__ import annotations

import gzip
import io
import time
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import TypeVar, cast

import msgspec

from potluck import wire
from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire.doctor import Finding
from potluck.wire.history import AskGpus, GpusTold
from potluck_tui.source import AnswerT, Glance

T = TypeVar("T")

FILE = "demo.jsonl.gz"
# Of the file, so that the package stays small; and unpacked, so that a broken one cannot fill the memory.
FILE_BYTES_MAX, BYTES_MAX = 200_000, 16 << 20
# Microseconds above this are moments (September 2001 and later), below it lengths of time.
MOMENT_MIN_US = 10**15


class Line(msgspec.Struct, frozen=True, array_like=True):
    """`question` and `answer` are messages, or "findings" and those of the doctor. `at_us` is Unix microseconds."""

    at_us: int
    question: msgspec.Raw
    answer: msgspec.Raw


class Recording:
    """Answers in the order in which they were given."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.begin_us = self.end_us = 0
        self.findings: list[Finding] = []
        self._answers: dict[str, list[tuple[int, control.ToNode, control.FromNode]]] = {}
        for line in lines:
            self.begin_us, self.end_us = self.begin_us or line.at_us, line.at_us
            if bytes(line.question) == b'"findings"':
                self.findings = msgspec.json.decode(line.answer, type=list[Finding])
                continue
            question = msgspec.json.decode(line.question, type=control.ToNode)
            answer = msgspec.json.decode(line.answer, type=control.FromNode)
            self._answers.setdefault(type(question).__name__, []).append((line.at_us, question, answer))

    def answer(self, question: wire.Message, at_us: int) -> tuple[int, wire.Message]:
        """What was said last at that moment, and when, to this question or else one like it. Raises `InvalidError`."""
        found = self._answers.get(type(question).__name__)
        if not found:
            raise InvalidError("A demo is a recording, and cannot do this.", fix="Start a node: potluck up")
        same = [each for each in found if each[1] == question] or found
        before = [each for each in same if each[0] <= at_us] or same[:1]
        return before[-1][0], before[-1][2]


def load() -> Recording:
    """The one in this package."""
    packed = (files("potluck_tui") / FILE).read_bytes()
    with gzip.open(io.BytesIO(packed)) as unpacked:
        lines = unpacked.read(BYTES_MAX).splitlines()
    return Recording(msgspec.json.decode(line, type=Line) for line in lines)


def _now_us() -> int:
    return time.time_ns() // 1000


class Demo:
    """A source that plays a recording. With `frozen_us`, it stands still at that long after its beginning, with the
    times that it was recorded with."""

    def __init__(self, recording: Recording, frozen_us: int | None = None) -> None:
        self._recording, self._frozen_us = recording, frozen_us
        self._begun_us = _now_us()
        self._paused: str | None = None

    def glance(self) -> Glance | None:
        status, gpus = self.answer(control.AskStatus(0)), self.answer(AskGpus(0))
        return Glance(cast(control.Status, status), cast(GpusTold, gpus))

    async def connect(self) -> Demo:
        return self

    async def aclose(self) -> None:
        """Nothing is open."""

    async def examine(self) -> list[Finding]:
        return self._recording.findings

    async def ask(self, make: Callable[[int], wire.Message], kind: type[AnswerT]) -> AnswerT:
        """As a node would answer now."""
        return cast(AnswerT, self.answer(make(0)))

    def answer(self, question: wire.Message) -> wire.Message:
        """Raises `InvalidError` for what a recording cannot do."""
        if isinstance(question, control.Pause | control.Resume):
            self._paused = question.reason if isinstance(question, control.Pause) else ""
            return control.Done(0)
        at_us, shift_us = self._moment()
        said_us, answer = self._recording.answer(question, at_us)
        if isinstance(answer, control.Status):
            if self._paused is not None:
                answer = msgspec.structs.replace(answer, paused=self._paused)
            return moved(answer, shift_us)
        # What is asked more rarely than it plays again is as old as it was when it was recorded.
        return moved(answer, shift_us + at_us - said_us)

    def _moment(self) -> tuple[int, int]:
        """Where the recording is, and by how much its times are moved."""
        begin_us = self._recording.begin_us
        if self._frozen_us is not None:
            return begin_us + self._frozen_us, 0
        past_us = _now_us() - self._begun_us
        length_us = max(1, self._recording.end_us - begin_us)
        turns = past_us // length_us
        return begin_us + past_us % length_us, self._begun_us + turns * length_us - begin_us


def moved(value: T, by_us: int) -> T:
    """With every moment in it later by so much: integers whose names end in `_us`. Signed bytes stay as they are."""
    if isinstance(value, tuple | list):
        return cast(T, type(value)(moved(each, by_us) for each in value))
    if not isinstance(value, msgspec.Struct):
        return value
    changes = {}
    for name in value.__struct_fields__:
        old = getattr(value, name)
        is_moment = name.endswith("_us") and isinstance(old, int) and old > MOMENT_MIN_US
        new = old + by_us if is_moment else moved(old, by_us)
        if new is not old:
            changes[name] = new
    return msgspec.structs.replace(value, **changes) if changes else value
