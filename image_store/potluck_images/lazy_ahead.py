"""What is likely to be read next: the chunks that follow in a file. Pure.

As file systems read ahead (Linux, mm/readahead.c): a little for a single read, then twice as much each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from potluck_images.manifest import File, Manifest

# 32 chunks of 64 KiB hide a round trip of 20 ms at 100 MB/s; more is a waste where a run ends.
AHEAD_MAX = 32
# With a single read come as many as a link of 100 Mbit/s and 20 ms moves in the round trip that the read waits anyway.
AHEAD_FIRST = 3


class Ahead:
    """Chunks of the large files of these layers, and which of them were read or fetched ahead."""

    def __init__(self, layers: Iterable[Manifest]) -> None:
        # File after file, with nothing between them.
        self._order = [digest for layer in layers for file in _large_files(layer) for digest in (*file, b"")]
        self._places = {digest: place for place, digest in enumerate(self._order)}
        # A place that was read or fetched ahead, with how many were fetched ahead at that time.
        self._runs: dict[int, int] = {}

    def after(self, digests: Iterable[bytes]) -> list[bytes]:
        """What to fetch ahead now that a read had to fetch these."""
        places = sorted(self._places[digest] for digest in digests if digest in self._places)
        if not places:
            return []
        before = self._runs.get(places[0] - 1)
        count = AHEAD_FIRST if before is None else min(2 * before, AHEAD_MAX)
        ahead = list(self._fresh(range(places[-1] + 1, places[-1] + 1 + count)))
        self._runs.update(dict.fromkeys([*places, *ahead], count))
        return [self._order[place] for place in ahead]

    def _fresh(self, places: range) -> Iterator[int]:
        """Up to the end of the file, or to what was fetched already."""
        for place in places:
            if not self._order[place] or place in self._runs:
                return
            yield place


def _large_files(layer: Manifest) -> Iterator[list[bytes]]:
    for entry in layer.entries:
        if isinstance(entry, File) and len(entry.pieces) > 1:
            yield [layer.chunks[piece.chunk].digest for piece in entry.pieces]
