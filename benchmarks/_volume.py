"""For `volumes.py`: a function that changes a volume and commits; `python _volume.py MEGABYTES ROUNDS` prints figures.

Runs where nothing but the two nodes uses the network: what loopback counts is what travelled.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import potluck

app = potluck.App("bench-volumes")
volume = potluck.Volume.from_name("bench", create_if_missing=True)
FILES = 10
DATA = Path("/data")


@app.function(volumes={DATA.as_posix(): volume}, timeout=600, memory=1024)
def change(what: str, number: int) -> float:
    """Seconds that a commit takes after one change."""
    if what == "small":
        (DATA / "small").write_bytes(os.urandom(1000))
    elif what == "block":
        with (DATA / "part-0").open("r+b") as file:
            file.seek(1_000_000 + 2_000_000 * number)
            file.write(os.urandom(65_536))
    elif what == "new":
        (DATA / "new").write_bytes(os.urandom(1_000_000))
    start = time.perf_counter()
    volume.commit()
    return time.perf_counter() - start


@app.function(volumes={DATA.as_posix(): volume.read_only()}, timeout=600, single_use_containers=True)
def start_reading(path: str, size: int) -> int:
    with (DATA / path).open("rb") as file:
        return len(file.read(size))


def travelled() -> int:
    """Bytes that loopback has carried."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def measured(run: Callable[[], Any]) -> tuple[Any, float, int]:
    """(result, seconds, bytes that travelled)."""
    before, start = travelled(), time.perf_counter()
    result = run()
    return result, time.perf_counter() - start, travelled() - before


def fill(megabytes: int) -> float:
    """Seconds to put that much, of random bytes, into the volume."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FILES):
            Path(folder, f"part-{number}").write_bytes(os.urandom(megabytes * 1_000_000 // FILES))
        start = time.perf_counter()
        with volume.batch_upload(force=True) as batch:
            batch.put_directory(folder, "/")
        return time.perf_counter() - start


def copy_s(megabytes: int) -> float:
    """The yardstick: seconds to copy as many bytes from one file to another, as `cp` does without reflinks."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.write_bytes(os.urandom(megabytes * 1_000_000))
        start = time.perf_counter()
        with source.open("rb") as read, Path(folder, "copy").open("wb") as write:
            while data := read.read(1 << 20):
                write.write(data)
            write.flush()
            os.fsync(write.fileno())
        return time.perf_counter() - start


def main(megabytes: int, rounds: int) -> None:
    figures: dict[str, Any] = {"megabytes": megabytes, "copy_s": copy_s(megabytes), "upload_s": fill(megabytes)}
    size = megabytes * 1_000_000
    with app.run(show_progress=False):
        _, figures["first_mount_s"], mounted = measured(lambda: change.remote("nothing", 0))
        figures["first_mount_bytes_ratio"] = mounted / size
        for what in ("small", "block", "new"):
            taken = [measured(lambda what=what, turn=turn: change.remote(what, turn)) for turn in range(rounds)]  # type: ignore[misc]
            figures[f"{what}_commit_s"] = statistics.median(seconds for seconds, _, _ in taken)
            figures[f"{what}_bytes"] = round(statistics.median(count for _, _, count in taken))
            figures[f"{what}_bytes_ratio"] = figures[f"{what}_bytes"] / size
        for turn in ("first", "second"):
            _, seconds, moved = measured(lambda: start_reading.remote("part-3", 1_000_000))
            figures[f"{turn}_reader_s"], figures[f"{turn}_reader_bytes_ratio"] = seconds, moved / size
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
