"""Fetching what a mounted image reads, and ahead of that what its profile names. Sans-IO, driven as an `ImagePull`.

It never ends by itself. `news` says which chunks have come, and which a reader waits for in vain.
"""

from __future__ import annotations

from potluck_images.pull import Progress
from potluck_images.store import ChunkStore
from potluck_images.sync import Action, Ask, ChunkSync, Done, Event, Store, Stuck, Tick, Wanted

# With no peer left that has a chunk, how long one may take to come back, microseconds.
STUCK_US_MAX = 10_000_000
# A reader waits no longer than this, however busy peers are; below `lazy_chunks.NEED_TIMEOUT_S`.
WAIT_US_MAX = 45_000_000


class LazyPull:
    """`total` is the raw size of the image's files in bytes, `here` how much of that is here already."""

    def __init__(self, store: ChunkStore, here: int, total: int) -> None:
        self._store, self._sync = store, ChunkSync()
        self._now_us = 0
        # What readers wait for, with the time since when.
        self._waiting: dict[bytes, int] = {}
        self._stuck: frozenset[bytes] = frozenset()
        self._came: list[bytes] = []
        self._lost: list[bytes] = []
        self.progress = Progress(here, total)

    def start(self) -> list[Action]:
        """Nothing is wanted yet."""
        return []

    def handle(self, event: Event) -> list[Action]:
        """What to do about an event."""
        if isinstance(event, Wanted):
            event = self._want(event)
        if isinstance(event, Tick):
            if not self._now_us:
                self._waiting = dict.fromkeys(self._waiting, event.now_us)
            self._now_us = event.now_us
        actions = [action for action in self._sync.handle(event) if self._note(action)]
        self._give_up()
        return actions

    def _want(self, event: Wanted) -> Wanted:
        missing = self._store.missing(event.digests)
        if event.urgent:
            lacked = set(missing)
            self._came += [digest for digest in event.digests if digest not in lacked]
            for digest in missing:
                self._waiting.setdefault(digest, self._now_us)
        return Wanted(tuple(missing), event.urgent)

    def _note(self, action: Action) -> bool:
        """Whether the driver has to do this."""
        if isinstance(action, Store):
            self._came.append(action.chunk.digest)
            self._waiting.pop(action.chunk.digest, None)
            self.progress = Progress(self.progress.done + action.chunk.size, self.progress.total)
        elif isinstance(action, Ask):
            self._stuck = self._stuck.difference(action.digests)
        elif isinstance(action, Stuck):
            self._stuck = frozenset(action.missing)
        return not isinstance(action, Stuck | Done)

    def _give_up(self) -> None:
        for digest, since_us in list(self._waiting.items()):
            waited_us = self._now_us - since_us
            if waited_us > WAIT_US_MAX or (waited_us > STUCK_US_MAX and digest in self._stuck):
                del self._waiting[digest]
                self._lost.append(digest)

    def news(self) -> tuple[list[bytes], list[bytes]]:
        """(what has come, what is lost) since the last time. To be asked when `Store` actions are done."""
        came, lost = self._came, self._lost
        self._came, self._lost = [], []
        return came, lost
