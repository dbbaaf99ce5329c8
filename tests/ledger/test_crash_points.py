"""Stops at every write of the journal: a sample of what `make crash` goes through; and a process that is killed."""

import random
import shutil

import pytest
from tests.ledger import crash_points
from tests.ledger.crash_points import OTHER, US, receipt

from potluck_ledger.balance import Accounts
from potluck_ledger.journal import Journal, verify
from potluck_ledger.keys import PrivateKey


@pytest.mark.parametrize("seed", range(6))
def test_a_journal_that_stops_at_any_write_is_whole_and_signs_nothing_twice(seed):
    assert crash_points.run(seed, 120) == 120


def finds(seeds=range(12)):
    """Whether some history shows a fault."""
    try:
        for seed in seeds:
            crash_points.run(seed, 250)
    except AssertionError as error:
        return str(error)
    return ""


def test_a_journal_that_does_not_wait_for_the_disk_is_found(monkeypatch):
    """The sample is worth something: it finds what the journal does against crashes when that is taken away."""
    lazy = crash_points._connect

    def connect(disk, setting, path):
        connection = lazy(disk, setting, path)
        wait = connection.executescript
        connection.executescript = lambda queries: wait(queries.replace("synchronous=FULL", "synchronous=NORMAL"))
        return connection

    monkeypatch.setattr(crash_points, "_connect", connect)
    assert "an entry that others hold is gone" in finds()


def test_a_voucher_counted_beside_its_receipt_is_found(monkeypatch):
    monkeypatch.setattr(Journal, "_is_settled", lambda journal, peer, lease: None)
    monkeypatch.setattr(Accounts, "_voucher", counted_twice)
    assert "time is lost, or counted twice" in finds()


def test_a_witness_that_signs_before_it_keeps_is_found(monkeypatch):
    monkeypatch.setattr(Journal, "keep_cosigned", lambda journal, owner, sequence, head: None)
    assert "a head that was cosigned is forgotten" in finds()


def counted_twice(accounts, voucher):
    accounts.account(voucher.caller).given_us += voucher.lease_us


def test_a_process_that_is_killed_again_and_again_keeps_one_history(tmp_path):
    """SIGKILL at a random moment, and on from there: what was told is there, each time, and is never told otherwise."""
    crash_points.kill_often(tmp_path / "journal", 8, random.Random(5))


def test_a_copy_of_the_files_of_a_journal_in_use_can_be_opened(tmp_path):
    """A backup by `cp`, between two writes."""
    journal = Journal(tmp_path / "journal", US)
    for number in range(4):
        journal.append(receipt(f"l{number}", 5), 1)
        shutil.copytree(tmp_path, tmp_path.with_name(f"backup-{number}"))
    journal.close()
    for number in range(4):
        backup = Journal(tmp_path.with_name(f"backup-{number}") / "journal", US)
        assert len(verify(US.peer, backup.records())) == number + 1
        backup.close()


def test_a_lease_that_was_billed_is_billed_once(tmp_path):
    """A crash between keeping the receipt and forgetting the voucher; and a receipt that comes twice."""
    journal = Journal(tmp_path / "journal", US)
    voucher = crash_points.Voucher("l", OTHER.peer, US.peer, 1, 4, 1)
    journal.hold(crash_points.countersign(OTHER, crash_points.sign(US, voucher)).encode())
    journal.append(receipt("l", 5), 1)
    journal.close()
    journal = Journal(tmp_path / "journal", US)
    journal.release("l", 2)
    journal.append(crash_points.countersign(OTHER, crash_points.sign(US, voucher)).encode(), 3)
    journal.append(receipt("l", 6), 4)
    assert journal.accounts.totals() == (5, 0)
    assert journal.knows_lease(OTHER.peer, "l")
    assert not journal.knows_lease(PrivateKey.generate().peer, "l")
    journal.close()


def test_an_earlier_versions_journal_learns_of_its_leases(tmp_path):
    journal = Journal(tmp_path / "journal", US)
    journal.append(receipt("l", 5), 1)
    with journal._db.transaction():
        journal._db.write("DROP TABLE leases")
    journal.close()
    journal = Journal(tmp_path / "journal", US)
    assert journal.knows_lease(OTHER.peer, "l")
    journal.close()
