"""Fetching journals for an audit: one that never ends is given up and named, and the others are looked at."""

import pytest
from tests.ledger.test_journal import CALLER, PROVIDER, signed

from potluck.cli import ledger_crawl
from potluck.cli.ledger_crawl import Crawl
from potluck.wire.audit import PeerJournal
from potluck_ledger.journal import Journal


class Shows:
    """In place of the connection to the node: pages of two entries of a journal; `endless` always has more."""

    def __init__(self, journals, endless=""):
        self.journals, self.endless = journals, endless

    def ask(self, make, kind):
        question = make(1)
        if question.peer not in self.journals:
            return PeerJournal(1, (), problem="it does not answer: gone")
        if question.peer == self.endless:
            return PeerJournal(1, ((b"x", b"y"), (b"x", b"y")), more=True)
        records = self.journals[question.peer][question.after :][:2]
        return PeerJournal(1, tuple(map(tuple, records)), more=len(records) == 2)

    def close(self):
        """Nothing to close."""


@pytest.fixture
def journals(tmp_path):
    made = {}
    for key in (CALLER, PROVIDER):
        journal = Journal(tmp_path / key.peer, key)
        journal.append_all([signed(number) for number in range(1, 6)], 1)
        made[key.peer] = list(journal.records())
        journal.close()
    return made


def test_all_pages_are_fetched_and_who_does_not_answer_is_named_in_its_place(journals, monkeypatch):
    monkeypatch.setattr(ledger_crawl, "client", lambda: Shows(journals))
    ours, gone, theirs = Crawl({}).run([CALLER.peer, "gone", PROVIDER.peer])
    assert (len(ours.entries), len(theirs.entries), ours.problem, theirs.problem) == (5, 5, "", "")
    assert (gone.entries, gone.problem) == ([], "it does not answer: gone")


@pytest.mark.parametrize("limit", ["ENTRIES_MAX", "ALL_ENTRIES_MAX"])
def test_a_journal_without_end_is_given_up(journals, monkeypatch, limit):
    monkeypatch.setattr(ledger_crawl, "client", lambda: Shows(journals, endless=PROVIDER.peer))
    monkeypatch.setattr(ledger_crawl, limit, 7)
    monkeypatch.setattr(ledger_crawl, "AT_ONCE", 1)
    ours, theirs = Crawl({}).run([CALLER.peer, PROVIDER.peer])
    assert (len(ours.entries), ours.problem) == (5, "")
    assert "too many entries" in theirs.problem


def test_a_journal_that_comes_too_slowly_is_given_up(journals, monkeypatch):
    monkeypatch.setattr(ledger_crawl, "client", lambda: Shows(journals))
    monkeypatch.setattr(ledger_crawl, "PEER_TIMEOUT_S", -1.0)
    (ours,) = Crawl({}).run([CALLER.peer])
    assert "did not show all of its journal" in ours.problem
