import sqlite3
import subprocess
import sys
import textwrap

import msgspec
import pytest

from potluck_ledger.balance import Accounts
from potluck_ledger.entries import (
    RECEIPT_BYTES_MAX,
    RECEIPT_KIND,
    TEXT_MAX,
    Receipt,
    encode,
    read_receipt,
)
from potluck_ledger.envelope import EnvelopeError, countersign, seal
from potluck_ledger.journal import Journal, JournalError, compare, export_lines, import_lines, verify
from potluck_ledger.keys import PrivateKey

CALLER, PROVIDER, STRANGER = (PrivateKey.generate() for _ in range(3))


def receipt(number=1, **changes):
    plain = Receipt(
        lease=f"lease-{number}",
        caller=CALLER.peer,
        provider=PROVIDER.peer,
        function="f" * 32,
        label="app.f",
        image="ab" * 32,
        nonce=bytes(16),
        started_us=1_000,
        ended_us=9_000,
        lease_us=5_000,
        busy_us=4_000,
        energy_mj=0,
        inputs=3,
        work=bytes(32),
    )
    return msgspec.structs.replace(plain, **changes)


def signed(number=1, **changes):
    return countersign(CALLER, seal(PROVIDER, RECEIPT_KIND, encode(receipt(number, **changes)))).encode()


@pytest.fixture
def journals(tmp_path):
    made = [Journal(tmp_path / key.peer, key) for key in (CALLER, PROVIDER)]
    yield made
    for journal in made:
        journal.close()


def test_entries_are_chained_and_verify(journals):
    journal, _ = journals
    assert [journal.append(signed(n), n) for n in (1, 2, 3)] == [1, 2, 3]
    entries = verify(CALLER.peer, journal.envelopes())
    assert [entry.receipt.lease for entry in entries] == ["lease-1", "lease-2", "lease-3"]
    assert all(entry.countersigned for entry in entries)


def test_the_same_receipt_is_kept_once(journals):
    journal, _ = journals
    assert journal.append(signed(), 1) == journal.append(signed(), 2) == 1


def test_the_chain_goes_on_after_reopening(journals, tmp_path):
    journals[0].append(signed(1), 1)
    journals[0].close()
    again = Journal(tmp_path / CALLER.peer, CALLER)
    again.append(signed(2), 2)
    assert len(verify(CALLER.peer, again.envelopes())) == 2
    again.close()


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_missing_entry_is_noticed_unless_it_is_the_last(journals, cut):
    journal, _ = journals
    for number in (1, 2, 3):
        journal.append(signed(number), number)
    entries = list(journal.envelopes())
    del entries[cut]
    if cut == 2:
        assert len(verify(CALLER.peer, entries)) == 2
    else:
        with pytest.raises(JournalError, match="does not follow"):
            verify(CALLER.peer, entries)


def test_swapped_and_foreign_entries_are_noticed(journals):
    ours, theirs = journals
    for number in (1, 2):
        ours.append(signed(number), number)
        theirs.append(signed(number), number)
    with pytest.raises(JournalError):
        verify(CALLER.peer, reversed(list(ours.envelopes())))
    with pytest.raises(JournalError, match="owner alone"):
        verify(CALLER.peer, theirs.envelopes())


def test_an_entry_that_is_changed_on_disk_is_noticed(journals, tmp_path):
    ours, _ = journals
    ours.append(signed(), 1)
    with sqlite3.connect(tmp_path / CALLER.peer) as db:
        ((data,),) = db.execute("SELECT envelope FROM entries")
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        db.execute("UPDATE entries SET envelope = ?", (bytes(changed),))
    with pytest.raises(JournalError):
        verify(CALLER.peer, ours.envelopes())


def test_receipts_between_others_are_not_taken(tmp_path):
    journal = Journal(tmp_path / "j", STRANGER)
    with pytest.raises(EnvelopeError, match="between other peers"):
        journal.append(signed(), 1)
    journal.close()


@pytest.mark.parametrize(
    "changes",
    [{"busy_us": 5_001}, {"lease_us": -1}, {"ended_us": 0}, {"caller": PROVIDER.peer}],
)
def test_impossible_figures_are_refused(changes):
    data = seal(PROVIDER, RECEIPT_KIND, encode(receipt(**changes))).encode()
    with pytest.raises(EnvelopeError):
        read_receipt(data)


def test_a_receipt_needs_its_providers_signature_first():
    body = encode(receipt())
    for envelope in (
        seal(CALLER, RECEIPT_KIND, body),
        countersign(PROVIDER, seal(CALLER, RECEIPT_KIND, body)),
        countersign(STRANGER, seal(PROVIDER, RECEIPT_KIND, body)),
    ):
        with pytest.raises(EnvelopeError, match="signed by its provider"):
            read_receipt(envelope.encode())
    assert read_receipt(seal(PROVIDER, RECEIPT_KIND, body).encode())[1].inputs == 3


def test_a_full_receipt_stays_below_its_limit():
    full = receipt(label="x" * TEXT_MAX, reason="y" * TEXT_MAX, ended_us=1 << 60, lease_us=1 << 50)
    assert len(encode(full)) <= RECEIPT_BYTES_MAX


def test_export_and_import(journals):
    ours, _ = journals
    ours.append(signed(), 1)
    owner, entries = import_lines(list(export_lines(CALLER.peer, ours.envelopes())))
    assert owner == CALLER.peer
    assert entries == list(ours.envelopes())
    for broken in (["{}"], ["not json"], [], ['{"journal": "x"}', '{"entry": "%%"}']):
        with pytest.raises(JournalError, match="not an exported journal"):
            import_lines(broken)


def test_two_journals_agree_or_say_where_not(journals):
    ours, theirs = journals
    for journal in journals:
        journal.append(signed(1), 1)
    ours.append(signed(2), 2)
    theirs.append(seal(PROVIDER, RECEIPT_KIND, encode(receipt(3))).encode(), 3)
    ours.append(signed(4), 4)
    theirs.append(signed(4, lease_us=6_000), 4)
    one = (CALLER.peer, verify(CALLER.peer, ours.envelopes()))
    other = (PROVIDER.peer, verify(PROVIDER.peer, theirs.envelopes()))
    problems = compare(one, other)
    assert len(problems) == 3
    assert any("lease-2: only" in text for text in problems)
    assert any("lease-3: only" in text for text in problems)
    assert any("lease-4: the two receipts differ" in text for text in problems)


def test_balances():
    found = Accounts(CALLER.peer, [receipt(1), receipt(2)]).by_peer
    assert found[PROVIDER.peer].balance_us == -10_000
    assert Accounts(PROVIDER.peer, [receipt(1)]).by_peer[CALLER.peer].balance_us == 5_000


def test_a_journal_keeps_its_balances_over_restarts(journals, tmp_path):
    _, theirs = journals
    theirs.append(signed(1), 1)
    theirs.append(signed(1), 1)
    assert theirs.accounts.by_peer[CALLER.peer].given_us == 5_000
    theirs.close()
    again = Journal(tmp_path / PROVIDER.peer, PROVIDER)
    assert again.accounts.by_peer[CALLER.peer].given_us == 5_000
    again.close()


def test_a_killed_writer_leaves_a_journal_that_verifies(tmp_path):
    """SIGKILL while it appends without pause: what was acknowledged is there, and the chain holds."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from potluck_ledger.journal import Journal
        from potluck_ledger.keys import PrivateKey
        from potluck_ledger.entries import RECEIPT_KIND, Receipt, encode
        from potluck_ledger.envelope import seal
        key, other = PrivateKey(bytes(32)), PrivateKey.generate()
        journal = Journal(Path(sys.argv[1]), key)
        for n in range(100000):
            receipt = Receipt(f"l{n}", other.peer, key.peer, "f", "l", "i", b"", 0, 1, 1, 1, 0, 1, b"")
            print(journal.append(seal(key, RECEIPT_KIND, encode(receipt)).encode(), n), flush=True)
    """)
    path = tmp_path / "journal"
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout
    acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
    writer.kill()
    writer.wait()
    key = PrivateKey(bytes(32))
    journal = Journal(path, key)
    assert len(verify(key.peer, journal.envelopes())) >= acknowledged[-1]
    journal.close()
    writer.stdout.close()
