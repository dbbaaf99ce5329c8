"""What a machine's GPUs did: looks become minutes, minutes longer spans as they get old. Pure.

Spans are kept for a week, minute by minute as far as there is room, and then more coarsely, the old ones first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from potluck.wire.history import UNKNOWN, GpuSpan, Span

MINUTE_S = 60
KEPT_S = 7 * 24 * 3600
# How coarse old spans become, step by step, when there is too little room.
COARSER_S = (300, 900, 3600)

_FIGURES = ("load_milli", "memory_mib", "temperature_c", "power_mw", "lent_milli")


def merged(spans: Iterable[Span], step_s: int) -> list[Span]:
    """Spans of at least `step_s` seconds, in order, which begin at whole multiples of it. What was given is summed up;
    figures of GPUs are means over the time in which they were known."""
    groups: dict[int, list[Span]] = {}
    for span in spans:
        step_us = max(step_s, span.step_s) * 1_000_000
        groups.setdefault(span.at_us // step_us * step_us, []).append(span)
    return [_one(at_us, groups[at_us], step_s) for at_us in sorted(groups)]


def _one(at_us: int, spans: list[Span], step_s: int) -> Span:
    if len(spans) == 1 and spans[0].at_us == at_us and spans[0].step_s >= step_s:
        return spans[0]
    seen: dict[str, list[tuple[int, GpuSpan]]] = {}
    for span in spans:
        for gpu in span.gpus:
            seen.setdefault(gpu.uuid, []).append((span.step_s, gpu))
    gpus = tuple(mean(uuid, each) for uuid, each in sorted(seen.items()))
    return Span(
        at_us,
        max(step_s, *(span.step_s for span in spans)),
        gpus,
        sum(span.inputs for span in spans),
        sum(span.given_us for span in spans),
        sum(span.gpu_us for span in spans),
    )


def mean(uuid: str, weighed: Sequence[tuple[int, GpuSpan]]) -> GpuSpan:
    """Of several looks at one GPU, each with its weight."""
    return GpuSpan(uuid, *(_mean(name, weighed) for name in _FIGURES))


def _mean(name: str, weighed: Sequence[tuple[int, GpuSpan]]) -> int:
    total = weights = 0
    for weight, gpu in weighed:
        value = getattr(gpu, name)
        if value != UNKNOWN:
            total += weight * value
            weights += weight
    return round(total / weights) if weights else UNKNOWN


def encoded(span: Span) -> bytes:
    """A line of the file."""
    return msgspec.json.encode(span) + b"\n"


def decoded(data: bytes) -> list[Span]:
    """The lines that are whole: a node that died may have left half of one."""
    spans = []
    for line in data.split(b"\n"):
        try:
            span = msgspec.json.decode(line, type=Span)
        except msgspec.DecodeError:
            continue
        if span.step_s > 0:
            spans.append(span)
    return spans


def thinned(spans: Iterable[Span], now_us: int, most: int, size: Callable[[Span], int]) -> list[Span]:
    """Those that are young enough, in at most `most` by `size`: the older half gets coarser, and the oldest go."""
    kept = sorted((span for span in spans if span.at_us > now_us - KEPT_S * 1_000_000), key=lambda span: span.at_us)
    for step_s in COARSER_S:
        if sum(map(size, kept)) <= most:
            return kept
        half = len(kept) // 2
        kept = merged(kept[:half], step_s) + kept[half:]
    room = most
    for count, span in enumerate(reversed(kept)):
        room -= size(span)
        if room < 0:
            return kept[len(kept) - count :]
    return kept


def stepped(spans: Sequence[Span], step_s: int, cells_max: int) -> list[Span]:
    """For an answer of at most `cells_max` figures, coarser than asked for where needed."""
    step_s = max(1, step_s)
    cells = sum(1 + len(span.gpus) for span in spans)
    if cells > cells_max:
        # About as coarse as it must be, at once: a week of eight GPUs minute by minute takes a second.
        step_s = max(step_s, min(span.step_s for span in spans) * -(-cells // cells_max))
    found = merged(spans, step_s)
    while len(found) > 1 and sum(1 + len(span.gpus) for span in found) > cells_max:
        step_s *= 2
        found = merged(found, step_s)
    return found


class Minutes:
    """Gathers looks into spans of a minute each."""

    def __init__(self) -> None:
        self._minute = 0
        self._looks: dict[str, list[tuple[int, GpuSpan]]] = {}
        self._given = (0, 0, 0)

    def gave(self, inputs: int, given_us: int, gpu_us: int) -> None:
        """Receipts came."""
        before = self._given
        self._given = (before[0] + inputs, before[1] + given_us, before[2] + gpu_us)

    def look(self, gpus: Iterable[GpuSpan], now_us: int) -> Span | None:
        """One more look; returns the minute before, once it is over and held anything."""
        minute, done = now_us // (MINUTE_S * 1_000_000), None
        if minute != self._minute:
            # What came before the first look is of the minute of that look.
            done = self.close() if self._minute else None
            self._minute = minute
        for gpu in gpus:
            self._looks.setdefault(gpu.uuid, []).append((1, gpu))
        return done

    def close(self) -> Span | None:
        """What there is of this minute."""
        span = self.now()
        self._looks, self._given = {}, (0, 0, 0)
        return span

    def now(self) -> Span | None:
        """The same, which goes on."""
        if not self._looks and not any(self._given):
            return None
        gpus = tuple(mean(uuid, each) for uuid, each in sorted(self._looks.items()))
        return Span(self._minute * MINUTE_S * 1_000_000, MINUTE_S, gpus, *self._given)
