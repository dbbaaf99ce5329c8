"""One wait for the disk for many: in order, none told before it is there, and nothing lost when the node ends."""

import threading
from functools import partial

import pytest
import trio
from tests.ledger.test_journal import CALLER, signed

from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.journal import Journal, JournalError, verify
from potluck_node import keeping
from potluck_node.keeping import Keeping, kept


class Disk:
    """How many writes each commit took; none ends before it may."""

    def __init__(self, journal):
        self.commits, self.begun, self.may_end = [], threading.Event(), threading.Event()
        self._together, journal.together = journal.together, self._wait

    def _wait(self, writes):
        self.commits.append(len(writes))
        self.begun.set()
        assert self.may_end.wait(20)
        return self._together(writes)


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal", CALLER)
    yield made
    made.close()


def append(journal, number):
    journal.append(signed(number), number)


async def test_what_comes_during_a_commit_shares_the_next(journal, nursery):
    disk, keeping, told = Disk(journal), Keeping(journal), []
    await nursery.start(keeping.serve)
    for number in range(6):
        keeping.keep(partial(append, journal, number), lambda problem, number=number: told.append((number, problem)))
        await trio.to_thread.run_sync(disk.begun.wait)
    assert journal.head()[0] == len(told) == 0, "it was told before it was on disk"
    disk.may_end.set()
    await kept(keeping.keep, partial(append, journal, 6))
    assert told == [(number, None) for number in range(6)]
    assert disk.commits[:2] == [1, 6]
    entries = verify(CALLER.peer, journal.records())
    assert [entry.receipt.lease for entry in entries] == [f"lease-{number}" for number in range(7)]
    assert journal.head()[0] == 7
    assert journal.accounts.totals() == (0, 7 * 5_000)


async def test_what_waits_when_the_node_ends_is_kept(journal):
    disk, told = Disk(journal), []
    async with trio.open_nursery() as nursery:
        keeping = Keeping(journal)
        await nursery.start(keeping.serve)
        for number in range(3):
            keeping.keep(partial(append, journal, number), told.append)
            await trio.to_thread.run_sync(disk.begun.wait)
        nursery.cancel_scope.cancel()
        disk.may_end.set()
    assert told == [None] * 3
    assert len(verify(CALLER.peer, journal.records())) == 3
    keeping.keep(partial(append, journal, 3), told.append)
    assert journal.head()[0] == len(told) == 4, "after the end each waits alone"


async def test_who_is_cancelled_has_it_kept_all_the_same(journal, nursery):
    disk, keeping = Disk(journal), Keeping(journal)
    await nursery.start(keeping.serve)
    async with trio.open_nursery() as impatient:
        impatient.start_soon(kept, keeping.keep, partial(append, journal, 1))
        await trio.to_thread.run_sync(disk.begun.wait)
        impatient.cancel_scope.cancel()
    disk.may_end.set()
    await kept(keeping.keep, partial(append, journal, 2))
    assert len(verify(CALLER.peer, journal.records())) == 2


async def test_what_cannot_be_kept_is_told_to_whom_it_concerns(journal, nursery):
    disk, keeping = Disk(journal), Keeping(journal)
    await nursery.start(keeping.serve)
    told, wrong = {}, signed(1)[:-1]
    for number, content in enumerate((signed(0), wrong, signed(2))):
        keeping.keep(partial(journal.append, content, 1), partial(told.setdefault, number))
    disk.may_end.set()
    await kept(keeping.keep, partial(append, journal, 3))
    assert [type(told[number]) for number in range(3)] == [type(None), EnvelopeError, type(None)]
    journal.block("it was copied")
    with pytest.raises(JournalError, match="it was copied"):
        await kept(keeping.keep, partial(append, journal, 4))


async def test_no_more_waits_than_may(journal, nursery, monkeypatch):
    monkeypatch.setattr(keeping, "WAITING_MAX", 2)
    disk, made, told, all_told = Disk(journal), Keeping(journal), [], trio.Event()

    def tell(problem):
        told.append(problem)
        if len(told) == 4:
            all_told.set()

    await nursery.start(made.serve)
    for number in range(4):
        made.keep(partial(append, journal, number), tell)
        await trio.to_thread.run_sync(disk.begun.wait)
    assert [str(problem) for problem in told] == ["too much waits for the disk"]
    disk.may_end.set()
    await all_told.wait()
    assert len(verify(CALLER.peer, journal.records())) == 3
