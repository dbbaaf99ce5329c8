"""Journals as peers show them: those that hold, hide, are cut, or are another than was signed before."""

import pytest
from tests.ledger.test_audit import ANN, BOB, entry, used
from tests.ledger.test_journal import CALLER, signed

from potluck_ledger.crawl import FRESH_US, examine, settled
from potluck_ledger.entries import Checkpoint, Dispute, sign
from potluck_ledger.forks import prove, read_both, read_fork, tell
from potluck_ledger.journal import Journal, JournalError, Record, digest, verify

OWNER = CALLER.peer


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal", CALLER)
    for number in (1, 2, 3):
        made.append(signed(number), number)
    yield made
    made.close()


def test_what_is_shown_in_whole_holds_also_when_it_has_grown_since(journal):
    heard = journal.checkpoint(9).encode()
    journal.append(signed(4), 4)
    shown = examine(OWNER, list(journal.records()), heard)
    assert (len(shown.entries), shown.problem, shown.findings) == (4, "", ())
    assert examine(OWNER, []).problem == ""


def test_what_is_between_others_is_checked_as_far_as_it_is_shown(journal):
    heard, records = journal.checkpoint(9).encode(), list(journal.records())
    records[1] = Record(records[1].entry, b"")
    shown = examine(OWNER, records, heard)
    assert ([each.receipt.lease for each in shown.entries], shown.hidden) == (["lease-1", "lease-3"], 1)
    assert (shown.problem, shown.findings) == ("", ())
    with pytest.raises(JournalError, match="not an envelope"):
        verify(OWNER, records)
    # Nothing can be left out behind it.
    del records[1]
    assert "does not follow" in examine(OWNER, records, heard).problem
    other = sign(CALLER, Checkpoint(OWNER, 2, bytes(32), 9, 0, 0)).encode()
    (finding,) = examine(OWNER, list(journal.records()), other).findings
    assert finding.kind == "fork"


def test_who_shows_less_than_it_signed_is_named(journal):
    heard = journal.checkpoint(9).encode()
    (finding,) = examine(OWNER, list(journal.records())[:2], heard).findings
    assert (finding.kind, "shows 2 entries, and signed that there are 3" in finding.text) == ("withheld", True)
    assert "none of its 3 entries" in examine(OWNER, [], heard).problem


def test_who_shows_another_journal_than_it_signed_is_proved_to(journal):
    heard = sign(CALLER, Checkpoint(OWNER, 2, bytes(32), 9, 0, 0)).encode()
    shown = examine(OWNER, list(journal.records()), heard)
    (finding,) = shown.findings
    assert (finding.kind, read_fork(shown.proof)) == ("fork", OWNER)
    assert "entry 2 is 0000000000000000" in finding.text


def test_what_does_not_verify_is_a_problem_and_no_finding(journal):
    records = list(journal.records())
    for broken in (records[1:], [records[0], records[2]], [Record(b"x", b"y")]):
        shown = examine(OWNER, broken)
        assert "entry" in shown.problem
        assert not shown.entries
    assert "owner first" in examine(BOB.peer, [], journal.checkpoint(9).encode()).problem


def test_a_proof_is_told_with_both_statements(journal):
    record = next(journal.records())
    proof = prove(sign(CALLER, Checkpoint(OWNER, 1, b"x" * 32, 9, 0, 0)).encode(), record.entry).encode()
    owner, fork = read_both(proof)
    assert owner == read_fork(proof) == OWNER
    assert record.entry in (fork.one, fork.other)
    assert "entry 1 is 7878787878787878" in tell(proof)
    assert f"entry 1 {digest(record.entry).hex()[:16]} that records" in tell(proof)


def test_leases_that_just_ended_are_not_compared():
    lease = used(ANN, BOB, 10)
    dispute = entry(Dispute(ANN.peer, BOB.peer, "1", 2, 1, 1, bytes(32), "why"), ANN)
    ended_us = lease.receipt.ended_us
    assert settled([lease, dispute], ended_us + FRESH_US) == [dispute]
    assert settled([lease, dispute], ended_us + FRESH_US + 1) == [lease, dispute]
    assert settled([dispute], dispute.at_us + FRESH_US) == []
