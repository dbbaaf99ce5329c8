"""The builds of images that run here, and how they give way to the owner: warned, then ended, to be tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from potluck.errors import Error, ImageBuildError
from potluck_node.core import builds as core


class GaveWayError(Exception):
    """Whoever asked for the build may try it again later; what its finished steps made is kept."""


@dataclass
class _Build:
    """`gpus` are those that its present step holds; `why` says why it ends, and `held` why it had no GPU."""

    peer: str
    say: Callable[[str], None]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    gpus: frozenset[str] = frozenset()
    why: str = ""
    held: str = ""
    warned: bool = False


class Builds:
    """One at a time for this node's own callers, whose `peer` is "", and one for peers: so a step is known by that."""

    def __init__(self) -> None:
        self._running: list[_Build] = []

    @contextmanager
    def running(self, peer: str, say: Callable[[str], None]) -> Iterator[None]:
        """What happens inside is a build. Raises `GaveWayError` when a peer's was ended for the owner, and
        `ImageBuildError` when one of our own was."""
        build = _Build(peer, say)
        self._running.append(build)
        try:
            with build.scope:
                try:
                    yield
                except Error:
                    if not build.held:
                        raise
                    raise GaveWayError(build.held) from None
        finally:
            self._running.remove(build)
        if build.scope.cancelled_caught:
            _end(build)

    def heed(self, event: object) -> None:
        """As the provider's core hears it."""
        for build in self._running:
            verdict = core.heed(event, not build.peer, build.gpus)
            if isinstance(verdict, core.Ended):
                build.why = build.why or verdict.why
                build.scope.cancel()
            elif verdict and not build.warned:
                build.warned = True
                build.say(f"{verdict.why}: it ends in {verdict.grace_us / 1e6:.0f} s")

    def holds(self, for_others: bool, gpus: frozenset[str]) -> None:
        """What the present step has."""
        for build in self._of(for_others):
            build.gpus = gpus

    def held_back(self, why: str) -> None:
        """The owner holds back the GPU that a peer's build asked for."""
        for build in self._of(True):
            build.held = why

    def _of(self, for_others: bool) -> list[_Build]:
        return [build for build in self._running if bool(build.peer) == for_others]


def _end(build: _Build) -> None:
    if build.peer:
        raise GaveWayError(build.why)
    raise ImageBuildError("The build was ended.", why=build.why, fix="Go on with: potluck resume; then run it again.")
