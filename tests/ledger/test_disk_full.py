import sqlite3

import pytest
from tests.ledger.test_journal import CALLER, signed

from potluck_ledger.journal import Journal, JournalError, verify


def test_a_full_disk_is_one_clear_error_and_leaves_the_journal_whole(tmp_path):
    journal = Journal(tmp_path / "journal", CALLER)
    journal.append(signed(1), 1)
    pages = journal._db._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._db._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="cannot be written: database or disk is full"):
        for number in range(2, 100):
            journal.append(signed(number), number)
    written = len(verify(CALLER.peer, journal.records()))
    assert journal.accounts.by_peer
    journal._db._writer.execute("PRAGMA max_page_count = 1000000")
    assert journal.append(signed(500), 500) == written + 1
    assert len(verify(CALLER.peer, journal.records())) == written + 1
    journal.close()


def test_a_new_journal_is_for_its_owner_alone(tmp_path):
    Journal(tmp_path / "journal", CALLER).close()
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    with sqlite3.connect(tmp_path / "journal") as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (0,)
