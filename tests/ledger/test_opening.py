"""A journal that is opened again: what was verified before is held against a note by its digests, and nothing that has
changed since passes; what is counted is the same as when all is verified."""

import shutil
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.test_journal import CALLER, PROVIDER, STRANGER, receipt, signed

from potluck_ledger import journal as journals
from potluck_ledger.entries import Transfer, Voucher, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.journal import Journal, JournalError, verify


@pytest.fixture
def noting(monkeypatch):
    """Each time that a journal is opened."""
    monkeypatch.setattr(journals, "NOTED_EVERY", 1)


@pytest.fixture
def path(tmp_path, noting):
    """A journal of which five entries are noted, and two came since."""
    path = tmp_path / "journal"
    for numbers in (range(1, 6), (), (6, 7)):
        journal = Journal(path, CALLER)
        for number in numbers:
            journal.append(signed(number), number)
        journal.close()
    return path


def edited(path, query, *values):
    with sqlite3.connect(path) as db:
        db.execute(query, values)
    db.close()


def counted(path):
    """How many entries were verified in whole when it was opened, and the sums."""
    verified = []

    def counting(data):
        verified.append(data)
        return whole(data)

    whole, journals.read_content = journals.read_content, counting
    try:
        journal = Journal(path, CALLER)
    finally:
        journals.read_content = whole
    sums = journal.accounts.totals(), len(list(journal.records())), journal.head()
    assert len(verify(CALLER.peer, journal.records())) == journal.head()[0]
    journal.close()
    return len(verified), *sums


def test_only_what_came_since_is_verified_in_whole(path):
    verified, sums, count, head = counted(path)
    assert (verified, sums, count, head[0]) == (2, (0, 7 * 5_000), 7, 7)
    assert counted(path) == (0, sums, count, head)


def test_the_note_is_of_use_to_its_owner_alone_and_else_all_is_verified(path):
    edited(path, "UPDATE opened SET note = (SELECT envelope FROM entries WHERE sequence = 1)")
    assert counted(path)[:2] == (7, (0, 7 * 5_000))
    edited(path, "UPDATE opened SET sums = ?", b"\x92\x91\x98\xa1x\x01\x02\x03\x04\x05\x06\x07\x90")
    assert counted(path)[:2] == (7, (0, 7 * 5_000))
    note = sign(STRANGER, Voucher("l", CALLER.peer, STRANGER.peer, 1, 1, 1)).encode()
    edited(path, "UPDATE opened SET note = ?", note)
    assert counted(path)[:2] == (7, (0, 7 * 5_000))


@pytest.mark.parametrize("sequence", [1, 3, 5, 6, 7])
@pytest.mark.parametrize("column", ["digest", "envelope", "content"])
@pytest.mark.parametrize("place", [5, -5])
def test_a_byte_that_has_changed_is_found_wherever_it_is(path, sequence, column, place):
    with sqlite3.connect(path) as db:
        ((data,),) = db.execute(f"SELECT {column} FROM entries WHERE sequence = ?", (sequence,))
    db.close()
    changed = bytearray(data)
    changed[place] ^= 1
    edited(path, f"UPDATE entries SET {column} = ? WHERE sequence = ?", bytes(changed), sequence)
    with pytest.raises(JournalError):
        Journal(path, CALLER)


@pytest.mark.parametrize("which", ["sequence = 2", "sequence = 5", "sequence = 1", "sequence = 6", "sequence > 4"])
def test_an_entry_that_is_gone_is_missed(path, which):
    edited(path, f"DELETE FROM entries WHERE {which}")
    with pytest.raises(JournalError):
        Journal(path, CALLER)


def test_a_journal_of_ours_of_another_history_is_not_taken_for_the_one_that_was_verified(path, tmp_path):
    other = tmp_path / "other"
    journal = Journal(other, CALLER)
    for number in range(11, 18):
        journal.append(signed(number), number)
    journal.close()
    edited(path, "DELETE FROM entries")
    with sqlite3.connect(path) as db:
        db.execute("ATTACH ? AS other", (str(other),))
        db.execute("INSERT INTO entries SELECT * FROM other.entries")
    db.close()
    with pytest.raises(JournalError, match="not the journal that was verified before"):
        Journal(path, CALLER)


def test_a_backup_is_opened_with_the_note_that_is_in_it(path, tmp_path):
    shutil.copy(path, tmp_path / "backup")
    journal = Journal(path, CALLER)
    journal.append(signed(8), 8)
    journal.close()
    counted(path)
    assert counted(tmp_path / "backup")[:2] == (2, (0, 7 * 5_000))


def test_nothing_is_noted_for_a_few_entries(tmp_path):
    path = tmp_path / "journal"
    for numbers in ((1, 2), ()):
        journal = Journal(path, CALLER)
        for number in numbers:
            journal.append(signed(number), number)
        journal.close()
    assert counted(path)[0] == 2


def content(kind, lease, us):
    """Something between the two: also a second receipt of one lease, and a voucher before or behind its receipt."""
    if kind == "transfer":
        return sign(CALLER, Transfer(CALLER.peer, PROVIDER.peer, us, us, bytes(16))).encode()
    if kind == "voucher":
        body = Voucher(f"lease-{lease}", CALLER.peer, PROVIDER.peer, 1, us, 1)
    else:
        body = receipt(lease, lease_us=us, busy_us=0)
    envelope = sign(PROVIDER, body)
    return (envelope if kind == "claim" else countersign(CALLER, envelope)).encode()


KINDS = st.sampled_from(["receipt", "voucher", "claim", "transfer"])
STEPS = st.lists(st.one_of(st.just("open"), st.tuples(KINDS, st.integers(1, 3), st.integers(1, 4))), max_size=14)


@pytest.mark.parametrize("key", [CALLER, PROVIDER])
@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_the_sums_are_those_of_a_journal_that_was_never_closed(tmp_path_factory, key, steps):
    folder = tmp_path_factory.mktemp("sums")
    before, journals.NOTED_EVERY = journals.NOTED_EVERY, 1
    try:
        once, often = Journal(folder / "once", key), Journal(folder / "often", key)
        for step in [*steps, "open"]:
            if step == "open":
                often.close()
                often = Journal(folder / "often", key)
                assert often.accounts == once.accounts
            else:
                for journal in (once, often):
                    journal.append(content(*step), 1)
        once.close()
        often.close()
    finally:
        journals.NOTED_EVERY = before
