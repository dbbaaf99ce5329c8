"""A node that is stopped at every write of its journal, and what must hold when it comes back.

`python -m tests.ledger.crash_points --points 100000` goes through as many; the unit tests take a sample.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tests.ledger.disk import Disk

import potluck_ledger.journal
from potluck_ledger.entries import Dispute, Receipt, Voucher, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.journal import Journal, Record, verify
from potluck_ledger.keys import PrivateKey

US, OTHER = PrivateKey(bytes(32)), PrivateKey(bytes([1]) * 32)
# Of the sectors that were not synced: none, all (the process alone was killed), and what chance leaves.
KEPT_MILLI = (0, 1000, 500, 500, 800, 950)
STEPS = 9
# In histories of some ten entries a note is written now and then.
NOTED_EVERY = 2


class Acknowledged(NamedTuple):
    """What a step returned, after so many operations of the disk: the counterparty holds it from then on."""

    ops: int
    begun: int
    entries: list[Record]
    owed_us: dict[str, int]
    # Heads of others that were cosigned, and the number of our own that others cosigned.
    cosigned: dict[str, int]
    witnessed: int


NOTHING: tuple[list[Record], dict[str, int], dict[str, int], int] = [], {}, {}, 0


@dataclass
class Node:
    """Keeps receipts and vouchers of leases as provider and caller do, and what was acknowledged when.

    `owed_us` is what is signed for each lease, by whatever is kept of it."""

    journal: Journal
    disk: Disk
    dice: random.Random
    reopen: Callable[[], Journal]
    owed_us: dict[str, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    leases: Iterator[int] = field(default_factory=itertools.count)
    cosigned: dict[str, int] = field(default_factory=dict)
    witnessed: int = 0

    def step(self) -> None:
        begun = len(self.disk.ops)
        steps = self._voucher, self._voucher, self._end, self._vanish, self._batch, self._again, self._witness
        self.dice.choice(steps)()
        entries = list(self.journal.records())
        known = dict(self.owed_us), dict(self.cosigned), self.witnessed
        self.acknowledged.append(Acknowledged(len(self.disk.ops), begun, entries, *known))

    def _lease(self) -> str:
        if self.running and self.dice.randrange(2):
            return self.dice.choice(sorted(self.running))
        lease = f"lease-{next(self.leases)}"
        self.running[lease] = 0
        return lease

    def _voucher(self) -> None:
        lease = self._lease()
        self.running[lease] += 1
        number = self.running[lease]
        voucher = Voucher(lease, OTHER.peer, US.peer, number, number * 2_000_000, number)
        self.journal.hold(countersign(OTHER, sign(US, voucher)).encode())
        self.owed_us[lease] = voucher.lease_us

    def _end(self) -> None:
        """With a receipt of both, in the provider's order."""
        lease = self._lease()
        used_us = self.running.pop(lease) * 2_000_000 + 700_000
        self.journal.append(receipt(lease, used_us), 1)
        self.owed_us[lease] = used_us
        self.journal.release(lease, 1)

    def _vanish(self) -> None:
        """Without one."""
        lease = self._lease()
        signed_us = self.running.pop(lease) * 2_000_000
        self.journal.release(lease, 1)
        dispute = Dispute(US.peer, OTHER.peer, lease, signed_us + 9, signed_us, 1, bytes(32), "it is gone")
        self.journal.append(sign(US, dispute).encode(), 1)

    def _batch(self) -> None:
        """Some at once, as those of many leases; and the end of one that runs."""
        leases = [f"lease-{next(self.leases)}" for _ in range(self.dice.randrange(1, 4))]
        found = self.journal.together([partial(self._write, lease) for lease in leases] + [self._end])
        assert found == [None] * len(found)
        self.journal.count()
        self.owed_us |= dict.fromkeys(leases, 300)

    def _again(self) -> None:
        """It ends, and begins anew: what it notes of what it has verified is written, too."""
        self.journal.close()
        self.journal = self.reopen()

    def _witness(self) -> None:
        """The head of a peer's journal is cosigned, or ours by a peer."""
        if self.dice.randrange(2):
            self.witnessed += 1
            self.journal.keep_head(b"%d" % self.witnessed)
            return
        owner = self.dice.choice(("ann", "bob"))
        self.cosigned[owner] = self.cosigned.get(owner, 0) + self.dice.randrange(1, 4)
        self.journal.keep_cosigned(owner, self.cosigned[owner], bytes([self.cosigned[owner]]) * 32)

    def _write(self, lease: str) -> None:
        self.journal.append(receipt(lease, 300), 1)


def receipt(lease: str, used_us: int) -> bytes:
    digests = "ab" * 16, "app.f", "cd" * 32, bytes(16)
    body = Receipt(lease, OTHER.peer, US.peer, *digests, 0, used_us, used_us, 0, 0, 1, bytes(32))
    return countersign(OTHER, sign(US, body)).encode()


@dataclass
class History:
    """One life of a node, as its disk and its counterparties saw it."""

    disk: Disk
    acknowledged: list[Acknowledged]

    @classmethod
    def of(cls, seed: int, folder: Path) -> History:
        dice, disk = random.Random(seed), Disk(f"recorded-{seed}")
        # Checkpoints write to the database itself: now and then, or after each few pages.
        connect = partial(_connect, disk, f"wal_autocheckpoint={dice.choice((2, 8, 1000))}")
        reopen = partial(Journal, folder / "journal", US, connect)
        node = Node(reopen(), disk, dice, reopen, acknowledged=[Acknowledged(len(disk.ops), 0, *NOTHING)])
        try:
            for _ in range(STEPS):
                node.step()
        finally:
            node.journal.close()
            disk.closed()
        return cls(disk, node.acknowledged)

    def points(self) -> Iterator[tuple[int, int]]:
        """Each operation, and how much of what was not synced is there after it."""
        return itertools.product(range(1, len(self.disk.ops) + 1), KEPT_MILLI)


def _connect(disk: Disk, setting: str, path: Path) -> object:
    return disk.connect(path, setting)


def check(history: History, at: int, kept_milli: int, dice: random.Random, folder: Path) -> None:
    """Come back after a stop at one point. Raises `AssertionError`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in history.disk.after(at, dice, kept_milli).items():
        (folder / name).write_bytes(data)
    journal = Journal(folder / "journal", US)
    try:
        for lease in journal.held():
            journal.release(lease, 2)
        _check(history, at, journal)
    finally:
        journal.close()


def _check(history: History, at: int, journal: Journal) -> None:
    before = [each for each in history.acknowledged if each.ops <= at]
    # Before the first, the node has not come up.
    entries = before[-1].entries if before else []
    known = list(journal.records())
    after = [each for each in history.acknowledged if each.begun < at <= each.ops] or before[-1:]
    assert known[: len(entries)] == entries, "an entry that others hold is gone, or another one"
    at_most = after[-1].owed_us if after else {}
    at_least = {
        lease: us for lease, us in (before[-1].owed_us if before else {}).items() if at_most.get(lease, 0) >= us
    }
    given_us = journal.accounts.totals()[0]
    assert sum(at_least.values()) <= given_us <= sum(at_most.values()), "time is lost, or counted twice"
    number = journal.append(receipt("the next", 1), 3)
    assert number == len(known) + 1 > len(entries)
    assert len(verify(US.peer, journal.records())) == number
    _check_witness(before[-1:], after[-1:], journal)


def _check_witness(before: list[Acknowledged], after: list[Acknowledged], journal: Journal) -> None:
    """What was cosigned is kept, or what was about to be: never less."""
    for owner in ("ann", "bob"):
        least, most = (each[-1].cosigned.get(owner, 0) if each else 0 for each in (before, after))
        number, head = journal.cosigned(owner) or (0, b"")
        assert number in (least, most), "a head that was cosigned is forgotten"
        assert head == bytes([number]) * 32 * bool(number)
    ours = [each[-1].witnessed if each else 0 for each in (before, after)]
    assert int(journal.witnessed() or b"0") in ours, "what witnesses signed is gone"


@mock.patch.object(potluck_ledger.journal, "NOTED_EVERY", NOTED_EVERY)
def run(seed: int, most: int | None = None) -> int:
    """All points of one history, or so many drawn from them; returns their number."""
    with tempfile.TemporaryDirectory(dir=_memory()) as name:
        folder, dice = Path(name), random.Random(f"points of {seed}")
        history = History.of(seed, folder)
        points = list(history.points())
        for at, kept_milli in dice.sample(points, most) if most else points:
            try:
                check(history, at, kept_milli, dice, folder / "again")
            except Exception as error:
                raise AssertionError(f"seed {seed}, operation {at}, {kept_milli} of 1000 kept: {error}") from error
    return most or len(points)


WRITER = """
import sys
from pathlib import Path
from tests.ledger.crash_points import OTHER, US, receipt
from potluck_ledger.entries import Voucher, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.journal import Journal
journal = Journal(Path(sys.argv[1]), US)
for n in range(journal.head()[0], 1_000_000):
    lease = f"l{n}"
    journal.hold(countersign(OTHER, sign(US, Voucher(lease, OTHER.peer, US.peer, 1, 2, 1))).encode())
    number = journal.append(receipt(lease, 9), n)
    print(number, journal.digest_of(number).hex(), flush=True)
    journal.release(lease, n)
"""


def kill_often(path: Path, times: int, dice: random.Random) -> None:
    """A real process that appends is really killed, and another goes on. Raises `AssertionError`."""
    told: dict[int, str] = {}
    for _ in range(times):
        news = _kill_one(path, dice.randrange(1, 12))
        assert news, "it told nothing"
        assert not news.keys() & told.keys(), "a number was used for another entry"
        told |= news
    journal = Journal(path, US)
    assert {number: (journal.digest_of(number) or b"").hex() for number in told} == told
    receipts = sum(entry.receipt is not None for entry in verify(US.peer, journal.records()))
    assert journal.accounts.totals()[0] == 9 * receipts
    journal.close()


def _kill_one(path: Path, lines: int) -> dict[int, str]:
    """What it told."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        said = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        said += writer.stdout.readlines()
    # The last line may be cut short.
    return {int(line.split()[0]): line.split()[1] for line in said if line.endswith("\n")}


def _memory() -> str | None:
    """Where there is one, a folder in memory: what a sync costs is not the question."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main(argv: list[str], say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=300, help="of a real process, a hundred to a journal")
    options = parser.parse_args(argv)
    begun, count, histories = time.monotonic(), 0, 0
    with multiprocessing.Pool(options.jobs) as pool:
        # More than enough: none has as few as a hundred.
        seeds = range(options.seed, options.seed + options.points // 100 + 1)
        for points in pool.imap_unordered(run, seeds):
            count, histories = count + points, histories + 1
            if count >= options.points:
                break
        pool.terminate()
    for number in range(options.kills // 100):
        with tempfile.TemporaryDirectory() as name:
            kill_often(Path(name) / "journal", 100, random.Random(options.seed + number))
    seconds = round(time.monotonic() - begun)
    say(json.dumps({"points": count, "histories": histories, "kills": options.kills // 100 * 100, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1:])
