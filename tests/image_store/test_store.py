"""Both stores against the one suite, and what only the disk can do wrong."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance.check_store import CHECKS

from potluck_images.digest import digest
from potluck_images.disk import DiskStore
from potluck_images.errors import CorruptDataError, NotFoundError, StoreFullError
from potluck_images.memory import MemoryStore

_WRITER = """
import os, sys
from potluck_images.disk import DiskStore
store = DiskStore(sys.argv[1])
number = 0
while True:
    with store.batch():
        names = [store.add(os.urandom(500) + b"%d" % i) for i in range(int(sys.argv[2]))]
    print("\\n".join(name.hex() for name in names), flush=True)
"""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_conformance(kind, check, tmp_path):
    store = MemoryStore() if kind == "memory" else DiskStore(tmp_path)
    check(store)
    store.close()


def test_survives_being_reopened(tmp_path):
    store = DiskStore(tmp_path)
    name = store.add(b"kept")
    store.close()
    again = DiskStore(tmp_path)
    assert again.get(name) == b"kept"
    again.close()


@pytest.mark.parametrize("batch", [1, 50])
def test_killed_while_writing_stays_whole(tmp_path, batch):
    """Whatever was reported as stored is there; nothing is corrupt; the store goes on."""
    rng = random.Random(batch)
    promised: set[bytes] = set()
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(batch)], stdout=subprocess.PIPE, text=True
        )
        lines = [process.stdout.readline().strip() for _ in range(rng.randrange(1, 200))]
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split("\n")[:-1]
        promised |= {bytes.fromhex(line) for line in lines + rest if len(line) == 64}
        store = DiskStore(tmp_path)
        assert store.missing(promised) == []
        assert store.verify() == []
        store.close()
    assert len(list((tmp_path / "packs").iterdir())) == 1


def _pack(folder: Path) -> Path:
    (pack,) = (folder / "packs").iterdir()
    return pack


def test_torn_tail_is_cut_and_whole_records_are_found_again(tmp_path):
    store = DiskStore(tmp_path)
    names = [store.add(b"%d" % number) for number in range(3)]
    store.close()
    size = _pack(tmp_path).stat().st_size
    with sqlite3.connect(tmp_path / "index.sqlite") as db:
        db.execute("UPDATE packs SET end = 0")
        db.execute("DELETE FROM chunks")
    db.close()
    with _pack(tmp_path).open("ab") as file:
        file.write(b"PLK1" + names[0] + b"\0\0\1")
    store = DiskStore(tmp_path)
    assert [store.get(name) for name in names] == [b"0", b"1", b"2"]
    assert _pack(tmp_path).stat().st_size == size
    assert store.get(store.add(b"more")) == b"more"
    store.close()


def test_bytes_that_went_bad_are_dropped_and_can_be_put_again(tmp_path):
    store = DiskStore(tmp_path)
    data = os.urandom(5000)
    good, bad = store.add(b"good"), store.add(data)
    with _pack(tmp_path).open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\0" * 50)
    with pytest.raises(CorruptDataError):
        store.get_frame(bad)
    assert not store.has(bad)
    with pytest.raises(NotFoundError):
        store.get(bad)
    assert store.get(store.add(data)) == data
    assert store.get(good) == b"good"
    store.close()


def test_verify_reports_what_went_bad(tmp_path):
    store = DiskStore(tmp_path)
    store.add(b"good")
    bad = store.add(os.urandom(5000))
    with _pack(tmp_path).open("r+b") as file:
        file.truncate(_pack(tmp_path).stat().st_size - 10)
    assert store.verify() == [bad]
    assert store.verify() == []
    store.close()
    store = DiskStore(tmp_path)
    names = [store.add(b"%d" % number) for number in range(100)]
    assert store.verify() == []
    assert store.missing(names) == []
    store.close()


def test_damaged_index_is_made_anew(tmp_path):
    store = DiskStore(tmp_path)
    name = store.add(b"kept")
    store.close()
    (tmp_path / "index.sqlite").write_bytes(b"not a database " * 1000)
    store = DiskStore(tmp_path)
    assert store.get(name) == b"kept"
    store.close()


def test_processes_share_a_store(tmp_path):
    store = DiskStore(tmp_path)
    store.add(b"ours")
    command = [sys.executable, "-c", _WRITER, str(tmp_path), "20"]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    theirs = [other.stdout.readline().strip() for other in others]
    store.add(b"ours too")
    assert all(len(store.get(bytes.fromhex(name))) >= 501 for name in theirs)
    for other in others:
        other.kill()
        other.communicate()
    assert store.verify() == []
    store.close()
    assert len(list((tmp_path / "packs").iterdir())) == 3


def test_cap_is_a_clear_error(tmp_path):
    for store in (DiskStore(tmp_path, bytes_max=10_000), MemoryStore(bytes_max=10_000)):
        name = store.add(os.urandom(5_000))
        with pytest.raises(StoreFullError, match="10000 bytes"):
            store.add(os.urandom(8_000))
        assert store.has(name)
        store.close()


_FILLER = """
import os, resource, sys
from potluck_images.disk import DiskStore
from potluck_images.errors import StoreFullError
store = DiskStore(sys.argv[1])
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
kept = []
try:
    while True:
        with store.batch():
            names = [store.add(os.urandom(50_000)) for _ in range(7)]
        kept += names
except StoreFullError as error:
    assert error.kind == "store-full" and error.fix, error
assert kept and not store.missing(kept) and not store.verify()
for pack in store._packs.iterdir():
    assert pack.stat().st_size == store._index.end(pack.name), "something is left behind the last record"
print("\\n".join(name.hex() for name in kept))
"""


def _fill(folder: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", _FILLER, folder, how], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    kept = [bytes.fromhex(line) for line in done.stdout.split()]
    store = DiskStore(folder)
    assert store.missing(kept) == []
    assert store.verify() == []
    store.close()


def test_file_size_limit_leaves_the_store_whole(tmp_path):
    _fill(tmp_path, "limit")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_disk_leaves_the_store_whole(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        _fill(tmp_path, "disk")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_full_disk_while_indexing_leaves_the_store_whole(tmp_path):
    """The pack still grows, the index does not: the pack is cut back to what is indexed."""
    store = DiskStore(tmp_path)
    kept = store.add(b"kept")
    store._index._db.execute("PRAGMA max_page_count = 7")
    names = [digest(b"%d" % number) for number in range(2000)]

    def fill():
        with store.batch():
            for number in range(2000):
                store.add(b"%d" % number)

    with pytest.raises(StoreFullError):
        fill()
    assert store.missing([kept, *names]) == names
    assert _pack(tmp_path).stat().st_size == store._index.end(_pack(tmp_path).name)
    store._index._db.execute("PRAGMA max_page_count = 100000")
    assert store.get(store.add(b"1")) == b"1"
    assert store.verify() == []
    store.close()
