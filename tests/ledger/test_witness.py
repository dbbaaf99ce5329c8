"""Witnesses cosign one history of each owner, whatever they are asked."""

import random

import pytest
from tests.ledger.test_sync import OTHER, OWNER, Journal

from potluck_ledger import journal as journal_module
from potluck_ledger.entries import Checkpoint, sign
from potluck_ledger.envelope import EnvelopeError, countersign, open_envelope
from potluck_ledger.journal import JournalError
from potluck_ledger.keys import PrivateKey
from potluck_ledger.witness import NOTHING, Asked, Seen, joined, read_cosigned

THIRD, WITNESS = PrivateKey(bytes([9]) * 32), PrivateKey(bytes([8]) * 32)


def cosign(checkpoint, history, last, most=1000):
    """As a witness does; returns what it keeps and signs."""
    asked = Asked(checkpoint, OWNER.peer, last)
    while not asked.is_shown:
        asked.came(history.entries[asked.after : asked.after + most])
    return Seen(asked.checkpoint.sequence, asked.checkpoint.head)


def test_heads_that_lead_from_one_to_the_next_are_cosigned():
    history, last = Journal().grow(2), NOTHING
    for grown in (0, 1, 25):
        history.grow(grown)
        last = cosign(history.checkpoint(), history, last, most=7)
        assert last.sequence == len(history.entries)
    # Again, and at another time.
    assert cosign(history.checkpoint(at_us=9), Journal(), last) == last


@pytest.mark.parametrize("seed", range(200))
def test_no_two_histories_are_cosigned(seed):
    """Two histories of one owner, who asks for heads of either and shows entries of either: all that is signed is one
    chain."""
    dice = random.Random(seed)
    base = Journal().grow(dice.randrange(4))
    pair = [base.fork().grow(6), base.fork().grow(6, flavour=1)]
    last, signed = NOTHING, []
    for _ in range(12):
        asked, shown = dice.choice(pair), dice.choice(pair)
        number = dice.randrange(1, len(asked.entries) + 1)
        try:
            last = cosign(asked.checkpoint(number), shown, last)
        except EnvelopeError:
            continue
        signed.append(last)
    assert signed
    assert any(all(asked_for(each, history) for each in signed) for history in pair)


def asked_for(seen, history):
    return Seen(seen.sequence, open_head(history, seen.sequence)) == seen


def open_head(history, number):
    return journal_module.digest(history.entries[number - 1])


def test_what_is_not_the_owners_or_older_is_refused():
    history = Journal().grow(5)
    last = cosign(history.checkpoint(3), history, NOTHING)
    for checkpoint, why in (
        (history.checkpoint(2), "a later head"),
        (history.fork().grow(0).checkpoint(3)[:-1], "not an envelope"),
        (Journal(history.entries[:2]).grow(1, flavour=1).checkpoint(), "another head"),
        (sign(OTHER, Checkpoint(OWNER.peer, 4, bytes(32), 1, 0, 0)).encode(), "signed by whom"),
        (countersign(OTHER, open_envelope(history.checkpoint(), Checkpoint.KIND)).encode(), "signed by whom"),
    ):
        with pytest.raises(EnvelopeError, match=why):
            Asked(checkpoint, OWNER.peer, last)
    with pytest.raises(EnvelopeError, match="shows no entries"):
        cosign(history.checkpoint(), Journal(), last)


def test_a_head_counts_with_as_many_signatures_as_are_needed():
    ours = Journal().grow(1).checkpoint()
    answers = [countersign(key, open_envelope(ours, Checkpoint.KIND)).encode() for key in (OTHER, THIRD)]
    witnesses = (THIRD.peer, WITNESS.peer, OTHER.peer)
    _, signers = read_cosigned(joined(ours, [*answers, b"nonsense"], witnesses, 2), OWNER.peer)
    assert signers == [THIRD.peer, OTHER.peer]
    assert joined(ours, [*answers, answers[0]], witnesses, 3) == b""
    # Of others, and of another head.
    assert joined(ours, answers, (WITNESS.peer,), 1) == b""
    other = countersign(OTHER, open_envelope(Journal().grow(2).checkpoint(), Checkpoint.KIND)).encode()
    assert joined(ours, [other], witnesses, 1) == b""
    with pytest.raises(EnvelopeError):
        read_cosigned(ours, OTHER.peer)


def test_what_was_cosigned_outlives_a_restart(tmp_path, monkeypatch):
    journal = journal_module.Journal(tmp_path / "journal", WITNESS)
    assert journal.cosigned(OWNER.peer) is None
    journal.keep_cosigned(OWNER.peer, 3, bytes([1]) * 32)
    journal.keep_head(b"checkpoint")
    journal.close()
    journal = journal_module.Journal(tmp_path / "journal", WITNESS)
    assert journal.cosigned(OWNER.peer) == (3, bytes([1]) * 32)
    assert journal.witnessed() == b"checkpoint"
    monkeypatch.setattr(journal_module, "COSIGNED_MAX", 1)
    journal.keep_cosigned(OWNER.peer, 4, bytes(32))
    with pytest.raises(JournalError, match="too many"):
        journal.keep_cosigned(OTHER.peer, 1, bytes(32))
    journal.close()
