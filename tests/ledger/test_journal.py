import sqlite3
import subprocess
import sys
import textwrap

import msgspec
import pytest

from potluck_ledger.balance import Accounts
from potluck_ledger.bodies import encode
from potluck_ledger.entries import (
    GPU_MAX,
    LABEL_MAX,
    LEASE_MAX,
    METHOD_MAX,
    MODEL_MAX,
    NOTE_MAX,
    QUALITY_MAX,
    REASON_MAX,
    TIER_MAX,
    Checkpoint,
    Dispute,
    Receipt,
    Transfer,
    Voucher,
    read,
    read_receipt,
    sign,
)
from potluck_ledger.envelope import EnvelopeError, countersign, seal
from potluck_ledger.exported import compare, export_lines, import_lines
from potluck_ledger.journal import Journal, JournalError, Record, verify
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
    return countersign(CALLER, sign(PROVIDER, receipt(number, **changes))).encode()


@pytest.fixture
def journals(tmp_path):
    made = [Journal(tmp_path / key.peer, key) for key in (CALLER, PROVIDER)]
    yield made
    for journal in made:
        journal.close()


def test_entries_are_chained_and_verify(journals):
    journal, _ = journals
    assert [journal.append(signed(n), n) for n in (1, 2, 3)] == [1, 2, 3]
    entries = verify(CALLER.peer, journal.records())
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
    assert len(verify(CALLER.peer, again.records())) == 2
    again.close()


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_missing_entry_is_noticed_unless_it_is_the_last(journals, cut):
    journal, _ = journals
    for number in (1, 2, 3):
        journal.append(signed(number), number)
    entries = list(journal.records())
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
        verify(CALLER.peer, reversed(list(ours.records())))
    with pytest.raises(JournalError, match="by whom it should be"):
        verify(CALLER.peer, theirs.records())


@pytest.mark.parametrize("column", ["envelope", "content"])
def test_an_entry_that_is_changed_on_disk_is_noticed(journals, tmp_path, column):
    ours, _ = journals
    ours.append(signed(), 1)
    with sqlite3.connect(tmp_path / CALLER.peer) as db:
        ((data,),) = db.execute(f"SELECT {column} FROM entries")
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        db.execute(f"UPDATE entries SET {column} = ?", (bytes(changed),))
    with pytest.raises(JournalError):
        verify(CALLER.peer, ours.records())


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
    data = seal(PROVIDER, Receipt.KIND, encode(receipt(**changes))).encode()
    with pytest.raises(EnvelopeError):
        read_receipt(data)
    with pytest.raises(EnvelopeError):
        sign(PROVIDER, receipt(**changes))


def test_a_receipt_needs_its_providers_signature_first():
    body = encode(receipt())
    for envelope in (
        seal(CALLER, Receipt.KIND, body),
        countersign(PROVIDER, seal(CALLER, Receipt.KIND, body)),
        countersign(STRANGER, seal(PROVIDER, Receipt.KIND, body)),
    ):
        with pytest.raises(EnvelopeError, match="signed by its provider"):
            read_receipt(envelope.encode())
    assert read_receipt(seal(PROVIDER, Receipt.KIND, body).encode())[1].inputs == 3


def test_a_full_receipt_stays_below_its_limit():
    lengths = {
        "lease": LEASE_MAX, "label": LABEL_MAX, "gpu": GPU_MAX, "gpu_model": MODEL_MAX, "method": METHOD_MAX,
        "quality": QUALITY_MAX, "reason": REASON_MAX, "tier": TIER_MAX,
    }  # fmt: skip
    numbers = dict.fromkeys(("started_us", "ended_us", "lease_us", "busy_us", "energy_mj"), 1 << 62)
    full = receipt(inputs=1 << 31, **numbers, **{name: "x" * most for name, most in lengths.items()})
    assert 490 < len(encode(full)) <= Receipt.BYTES_MAX == 512
    with pytest.raises(EnvelopeError, match="at most 512"):
        sign(PROVIDER, receipt(label="x" * 400))


def test_export_and_import(journals):
    ours, _ = journals
    ours.append(signed(), 1)
    owner, entries = import_lines(list(export_lines(CALLER.peer, ours.records())))
    assert owner == CALLER.peer
    assert entries == list(ours.records())
    for broken in (["{}"], ["not json"], [], ['{"journal": "x", "format": 2}', '{"entry": "%%"}']):
        with pytest.raises(JournalError, match="not an exported journal"):
            import_lines(broken)


def test_two_journals_agree_or_say_where_not(journals):
    ours, theirs = journals
    for journal in journals:
        journal.append(signed(1), 1)
    ours.append(signed(2), 2)
    theirs.append(seal(PROVIDER, Receipt.KIND, encode(receipt(3))).encode(), 3)
    ours.append(signed(4), 4)
    theirs.append(signed(4, lease_us=6_000), 4)
    one = (CALLER.peer, verify(CALLER.peer, ours.records()))
    other = (PROVIDER.peer, verify(PROVIDER.peer, theirs.records()))
    problems = compare(one, other)
    assert len(problems) == 3
    assert any("lease-2: only" in text for text in problems)
    assert any("lease-3: only" in text for text in problems)
    assert any("lease-4: the two receipts differ" in text for text in problems)


def accounts(owner, *contents):
    made = Accounts(owner.peer)
    for content in contents:
        made.record(*content)
    return made


def both(body):
    return countersign(CALLER, sign(PROVIDER, body)), body


def test_balances():
    made = [both(receipt(1)), both(receipt(2))]
    assert accounts(CALLER, *made).by_peer[PROVIDER.peer].balance_us == -10_000
    assert accounts(PROVIDER, *made).by_peer[CALLER.peer].balance_us == 10_000
    assert accounts(PROVIDER, *made).totals() == (10_000, 0)


def voucher(number, lease_us, lease="lease-1"):
    return Voucher(lease, CALLER.peer, PROVIDER.peer, number, lease_us, 1)


@pytest.mark.parametrize("owner", [CALLER, PROVIDER])
def test_a_lease_counts_once_whatever_is_recorded_of_it(owner):
    """Vouchers, then a receipt of both: what is counted is what the receipt says."""
    steps = [both(voucher(1, 2_000)), both(voucher(2, 3_000)), both(voucher(1, 2_000)), both(receipt(1))]
    account = accounts(owner, *steps[:3]).account(PROVIDER.peer if owner is CALLER else CALLER.peer)
    assert account.given_us + account.used_us == 3_000
    account = accounts(owner, *steps).account(account.peer)
    assert account.given_us + account.used_us == 5_000


def test_what_only_the_provider_signed_counts_as_far_as_there_is_a_voucher():
    alone = sign(PROVIDER, receipt(1)), receipt(1)
    account = accounts(PROVIDER, both(voucher(1, 2_000)), alone).account(CALLER.peer)
    assert (account.given_us, account.unsigned_us, account.balance_us) == (2_000, 3_000, 2_000)
    # Nor does a voucher that nobody countersigned.
    assert not accounts(PROVIDER, (sign(PROVIDER, voucher(1, 9)), voucher(1, 9))).by_peer


def test_who_leaves_too_much_unsigned_is_known():
    made = [(sign(PROVIDER, each), each) for each in (receipt(n, lease_us=10_000_000) for n in range(4))]
    assert not accounts(PROVIDER, *made[:3]).account(CALLER.peer).owes_too_much
    assert accounts(PROVIDER, *made).account(CALLER.peer).owes_too_much
    signed_more = both(receipt(9, lease_us=3_000_000_000))
    assert not accounts(PROVIDER, *made, signed_more).account(CALLER.peer).owes_too_much


def test_transfers_move_a_balance():
    gift = Transfer(CALLER.peer, PROVIDER.peer, 700, 1, bytes(16), "thanks")
    content = sign(CALLER, gift), gift
    assert accounts(CALLER, content).account(PROVIDER.peer).balance_us == -700
    assert accounts(PROVIDER, content).account(CALLER.peer).balance_us == 700


def test_a_journal_holds_disputes_transfers_and_vouchers_about_its_owner(journals):
    ours, theirs = journals
    dispute = Dispute(PROVIDER.peer, CALLER.peer, "lease-1", 9, 4, 1, bytes(32), "n" * NOTE_MAX)
    gift = Transfer(CALLER.peer, PROVIDER.peer, 700, 1, bytes(16), "n" * NOTE_MAX)
    for content in (sign(PROVIDER, dispute), sign(CALLER, gift), both(voucher(1, 2))[0]):
        for journal in (ours, theirs):
            journal.append(content.encode(), 1)
    contents = [entry.content for entry in verify(CALLER.peer, ours.records())]
    assert contents == [dispute, gift, voucher(1, 2)]
    for stranger in (sign(STRANGER, dispute), sign(PROVIDER, gift), sign(CALLER, voucher(1, 2))):
        with pytest.raises(EnvelopeError, match="signed by"):
            ours.append(stranger.encode(), 2)


def test_a_checkpoint_says_where_a_journal_is(journals):
    _, theirs = journals
    theirs.append(signed(1), 1)
    envelope = theirs.checkpoint(7)
    checkpoint = read(envelope.encode(), Checkpoint, PROVIDER.peer)
    assert (checkpoint.sequence, checkpoint.head) == theirs.head()
    assert (checkpoint.given_us, checkpoint.used_us, checkpoint.at_us) == (5_000, 0, 7)
    # Others cosign it: the owner stays the first.
    assert countersign(STRANGER, envelope).signers == [PROVIDER.peer, STRANGER.peer]


def test_an_entry_with_another_content_beside_it_is_noticed(journals):
    ours, _ = journals
    ours.append(signed(1), 1)
    (record,) = ours.records()
    with pytest.raises(JournalError, match="something else than is shown"):
        verify(CALLER.peer, [Record(record.entry, signed(2))])


def test_entries_are_read_from_any_on(journals):
    ours, _ = journals
    for number in (1, 2, 3):
        ours.append(signed(number), number)
    assert list(ours.records(1, 1)) == list(ours.records())[1:2]


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
        from potluck_ledger.entries import Receipt, sign
        key, other = PrivateKey(bytes(32)), PrivateKey.generate()
        journal = Journal(Path(sys.argv[1]), key)
        for n in range(100000):
            digests = "ab" * 16, "label", "cd" * 32, bytes(16)
            receipt = Receipt(f"l{n}", other.peer, key.peer, *digests, 0, 1, 1, 1, 0, 1, bytes(32))
            print(journal.append(sign(key, receipt).encode(), n), flush=True)
    """)
    path = tmp_path / "journal"
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout
    acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
    writer.kill()
    writer.wait()
    key = PrivateKey(bytes(32))
    journal = Journal(path, key)
    assert len(verify(key.peer, journal.records())) >= acknowledged[-1]
    journal.close()
    writer.stdout.close()
