"""The shortest replay of a broken promise: fewer nodes, less time, fewer kinds of faults, as long as the same breaks.

Greedy, as delta debugging goes (Zeller and Hildebrandt, 2002), on the options of a world: another world has another
history, so a few seeds are tried for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from potluck_netsim.faults import Faults, none
from potluck_netsim.scenarios import Options
from potluck_netsim.world import PromiseBroken

# Worlds that are tried at most, and seeds for each set of options.
WORLDS_MAX, SEEDS = 120, 3
# No mesh is smaller, and no world shorter.
NODES_MIN, MINUTES_MIN = 2, 0.25


class Runs(Protocol):
    def run(self) -> object:
        """Raises `PromiseBroken`."""
        ...


Scenario = Callable[[Options, None], Runs]


@dataclass
class Shrinker:
    """Of one scenario; `options.faults` says every fault."""

    scenario: Scenario
    options: Options
    broken: PromiseBroken
    worlds: int = 0

    def shrink(self) -> PromiseBroken:
        """The same promise, broken in the smallest world found; `options` are those of it."""
        while self._smaller():
            pass
        return self.broken

    def _smaller(self) -> bool:
        """Whether a smaller world breaks it, too."""
        return any(self._breaks(options) for options in smaller(self.options))

    def _breaks(self, options: Options) -> bool:
        for seed in range(options.seed, options.seed + SEEDS):
            if self.worlds >= WORLDS_MAX:
                return False
            self.worlds += 1
            tried = replace(options, seed=seed)
            try:
                self.scenario(tried, None).run()
            except PromiseBroken as broken:
                if broken.promise == self.broken.promise:
                    self.options, self.broken = tried, broken
                    return True
        return False


def smaller(options: Options) -> Iterator[Options]:
    """What to try, the greatest steps first."""
    for nodes in (options.nodes // 2, options.nodes - 1):
        if NODES_MIN <= nodes < options.nodes:
            yield replace(options, nodes=nodes)
    for minutes in (options.minutes / 4, options.minutes * 0.7):
        if minutes >= MINUTES_MIN:
            yield replace(options, minutes=round(minutes, 2))
    faults = options.faults or Faults()
    for field in dataclasses.fields(Faults):
        calm = getattr(none(), field.name)
        if getattr(faults, field.name) != calm:
            yield replace(options, faults=replace(faults, **{field.name: calm}))


def replay(scenario: str, options: Options) -> str:
    """The command that shows it."""
    said = [f"--seed {options.seed}", f"--nodes {options.nodes}", f"--minutes {options.minutes:g}"]
    faults = options.faults or Faults()
    said += [
        f"--{field.name.replace('_', '-')} {getattr(faults, field.name)}"
        for field in dataclasses.fields(Faults)
        if getattr(faults, field.name) != getattr(none(), field.name)
    ]
    return f"python -m potluck_netsim {scenario} --calm {' '.join(said)}"
