"""Compaction gives disk space back, and no death, full disk or other process costs a chunk."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from tests.image_store.crash import at_every_step

from potluck_images import disk, packfile
from potluck_images.digest import digest
from potluck_images.disk import DiskStore
from potluck_images.errors import StoreFullError


def data(number: int, size: int = 3000) -> bytes:
    return random.Random(number).randbytes(size)


def fill(folder: Path, count: int, size: int = 3000) -> DiskStore:
    store = DiskStore(folder)
    with store.batch():
        for number in range(count):
            store.add(data(number, size))
    return store


def holds(store: DiskStore, numbers, size: int = 3000) -> bool:
    return all(store.get(digest(data(number, size))) == data(number, size) for number in numbers)


def test_room_of_discarded_chunks_comes_back(tmp_path):
    store = fill(tmp_path, 100)
    before = store.disk_bytes()
    store.discard(digest(data(number)) for number in range(90))
    won = store.compact()
    assert won == before - store.disk_bytes() > before * 0.88
    assert holds(store, range(90, 100))
    assert store.verify() == []
    store.add(b"more")
    store.close()
    again = DiskStore(tmp_path)
    assert holds(again, range(90, 100))
    assert again.get(digest(b"more")) == b"more"
    assert not again.has(digest(data(3)))
    again.close()


def test_packs_in_good_use_are_left_alone(tmp_path):
    store = fill(tmp_path, 100)
    store.discard(digest(data(number)) for number in range(10))
    assert store.compact() == 0
    store.close()


def test_many_packs_and_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "PACK_BYTES_MAX", 30_000)
    monkeypatch.setattr(disk, "SLICE_BYTES_MAX", 7_000)
    store = fill(tmp_path, 100)
    packs = len(list((tmp_path / "packs").iterdir()))
    assert packs > 8
    store.discard(digest(data(number)) for number in range(100) if number % 3)
    seen = []
    store.compact(progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, seen[0][1])
    assert len(list((tmp_path / "packs").iterdir())) < packs / 2
    assert holds(store, range(0, 100, 3))
    store.close()


def test_bad_records_do_not_travel(tmp_path):
    store = fill(tmp_path, 10)
    (pack,) = (tmp_path / "packs").iterdir()
    store.discard(digest(data(number)) for number in range(7))
    with pack.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(bytes(50))
    store.compact()
    assert holds(store, (7, 8))
    assert not store.has(digest(data(9)))
    store.close()


def test_killed_at_every_step_nothing_is_lost(tmp_path, monkeypatch):
    """Put, discard, compact, put again: at each death what was reported is there, and what follows works."""
    monkeypatch.setattr(disk, "SLICE_BYTES_MAX", 5_000)
    kept, said = range(8, 12), "said"

    def make(folder):
        store = fill(folder, 12)
        store.discard(digest(data(number)) for number in range(8))
        store.close()
        (folder / said).write_text("")

    def work(folder):
        with (folder / said).open("a") as report:
            store = DiskStore(folder)
            for number in (100, 101):
                name = store.add(data(number))
                print(name.hex(), file=report, flush=True)
            store.compact()
            print(store.add(data(102)).hex(), file=report, flush=True)
            store.close()

    def check(folder):
        store = DiskStore(folder)
        assert store.verify() == []
        assert holds(store, kept)
        # A report may be torn by the death itself.
        reported = [line for line in (folder / said).read_text().split("\n") if len(line) == 64]
        assert store.missing(bytes.fromhex(line) for line in reported) == []
        store.compact()
        assert holds(store, kept)
        assert store.disk_bytes() < 9 * 3100
        store.close()

    assert at_every_step(make, work, check, tmp_path) > 30


def test_first_packs_survive_being_killed_at_every_step(tmp_path):
    """From an empty folder, with packs that fill up."""

    def work(folder):
        disk.PACK_BYTES_MAX = 7000
        store = DiskStore(folder)
        for number in range(6):
            store.add(data(number))
        store.close()

    def check(folder):
        store = DiskStore(folder)
        assert store.verify() == []
        for number in range(6):
            store.add(data(number))
        assert holds(store, range(6))
        store.close()

    assert at_every_step(lambda folder: None, work, check, tmp_path) > 30


def test_full_disk_while_compacting_leaves_all_chunks(tmp_path, monkeypatch):
    store = fill(tmp_path, 40)
    store.discard(digest(data(number)) for number in range(25))
    real, left = os.pwrite, [5]

    def full(*args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(packfile.os, "pwrite", full)
    with pytest.raises(StoreFullError, match="cannot grow"):
        store.compact()
    assert holds(store, range(25, 40))
    monkeypatch.setattr(packfile.os, "pwrite", real)
    assert store.compact() > 0
    assert holds(store, range(25, 40))
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_disk_that_is_really_full(tmp_path):
    """Whatever fails says why and loses nothing; with a little room, all room comes back."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    store = DiskStore(tmp_path)
    try:
        _fill_up_and_recover(store, tmp_path)
    finally:
        store.close()
        subprocess.run(["umount", tmp_path], check=True)


def _fill_up_and_recover(store: DiskStore, folder: Path) -> None:
    others = folder / "what-the-user-can-spare"
    others.write_bytes(bytes(200_000))
    count = 0
    with pytest.raises(StoreFullError):
        while True:
            store.add(data(count))
            count += 1
    with suppress(OSError), (folder / "spill").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 12)):  # the last pages too
            pass
    gone = [digest(data(number)) for number in range(count) if number % 3]
    with suppress(StoreFullError):
        store.discard(gone)
        store.compact()
    assert holds(store, range(0, count, 3))
    others.unlink()
    store.discard(digest(data(number)) for number in range(count))
    store.compact()
    assert store.disk_bytes() == 0
    assert store.get(store.add(b"room again")) == b"room again"


_OTHER = """
import random, sys
from potluck_images.digest import digest
from potluck_images.disk import DiskStore
store = DiskStore(sys.argv[1])
print("ready", flush=True)
for round in range(30):
    for number in range(30):
        data = random.Random(number).randbytes(3000)
        assert store.get(digest(data)) == data
    fresh = [random.Random(round * 100 + n + 1000).randbytes(3000) for n in range(30)]
    with store.batch():
        names = [store.add(each) for each in fresh]
    store.discard(names)
    store.compact()
store.close()
"""


def test_two_processes_compact_one_store(tmp_path):
    """Both read, write, discard and compact at once: no read fails, and the room comes back."""
    store = fill(tmp_path, 30)
    others = [
        subprocess.Popen([sys.executable, "-c", _OTHER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for _ in range(20):
        assert holds(store, range(30))
        store.compact()
    for other in others:
        _, errors = other.communicate(timeout=60)
        assert other.returncode == 0, errors.decode()
    store.compact()
    assert holds(store, range(30))
    assert store.disk_bytes() < 2.2 * 30 * 3100
    store.close()


def test_threads_read_and_write_while_compacting(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "SLICE_BYTES_MAX", 5_000)
    store = fill(tmp_path, 60)
    failures: list[BaseException] = []
    stop = threading.Event()

    def use():
        try:
            number = 1000
            while not stop.is_set():
                number += 1
                assert holds(store, range(30, 60))
                store.add(data(number))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    for start in range(0, 30, 5):
        store.discard(digest(data(number)) for number in range(start, start + 5))
        store.compact()
    stop.set()
    thread.join()
    assert not failures, failures
    store.close()
