"""Writes that wait for the disk together: each is whole or not there, and nobody sees them before."""

import threading
from functools import partial

import pytest
from tests.ledger.test_journal import CALLER, signed

from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.journal import Journal, JournalError, verify


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal", CALLER)
    yield made
    made.close()


def append(journal, *numbers, broken=False):
    for number in numbers:
        journal.append(signed(number), number)
    if broken:
        journal.append(b"nonsense", 1)


def test_one_that_fails_half_way_leaves_nothing_and_the_others_whole(journal):
    writes = [partial(append, journal, 1), partial(append, journal, 2, 3, broken=True), partial(append, journal, 4)]
    problems = journal.together(writes)
    assert [type(problem) for problem in problems] == [type(None), EnvelopeError, type(None)]
    journal.count()
    leases = [entry.receipt.lease for entry in verify(CALLER.peer, journal.records())]
    assert leases == ["lease-1", "lease-4"]
    assert journal.accounts.totals() == (0, 10_000)
    append(journal, 5)
    assert journal.head()[0] == len(verify(CALLER.peer, journal.records())) == 3


def test_a_full_disk_fails_all_of_them(journal):
    append(journal, 1)
    pages = journal._db._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._db._writer.execute(f"PRAGMA max_page_count = {pages}")
    problems = journal.together([partial(append, journal, number) for number in range(2, 60)])
    journal.count()
    kept = [problem for problem in problems if problem is None]
    assert any(isinstance(problem, JournalError) for problem in problems)
    entries = verify(CALLER.peer, journal.records())
    assert len(entries) == journal.head()[0] == 1 + len(kept)
    assert journal.accounts.totals() == (0, 5_000 * len(entries))
    journal._db._writer.execute("PRAGMA max_page_count = 1000000")
    append(journal, 100)
    assert len(verify(CALLER.peer, journal.records())) == len(entries) + 1


def test_nobody_sees_what_is_not_on_disk(journal):
    """Another thread writes, and is held in the midst of it."""
    inside, go_on = threading.Event(), threading.Event()

    def wait():
        append(journal, 2)
        assert len(list(journal.records())) == 2
        inside.set()
        assert go_on.wait(20)

    append(journal, 1)
    writer = threading.Thread(target=journal.together, args=[[wait]])
    writer.start()
    assert inside.wait(20)
    assert len(list(journal.records())) == journal.head()[0] == 1
    assert not journal.knows_lease(signed_by(journal), "lease-2")
    go_on.set()
    writer.join()
    assert len(list(journal.records())) == 2
    assert journal.head()[0] == 1, "it counts when it is counted"
    append(journal, 3)
    assert journal.head()[0] == 3
    assert journal.checkpoint(1).encode()
    assert journal.accounts.totals() == (0, 15_000)


def signed_by(journal):
    (account,) = journal.accounts.by_peer
    return account
