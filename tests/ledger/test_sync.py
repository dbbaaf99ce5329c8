"""Following journals: an honest owner is never convicted, and one with two histories is as soon as both are heard."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potluck_ledger.entries import Checkpoint, Entry, sign
from potluck_ledger.envelope import EnvelopeError, countersign
from potluck_ledger.forks import PROOF_BYTES_MAX, prove, read_fork
from potluck_ledger.journal import GENESIS, digest
from potluck_ledger.keys import PrivateKey
from potluck_ledger.sync import FETCH_MAX, FOLLOWED_MAX, Behind, Convict, Fetch, Follower, Spread

OWNER, OTHER, US = (PrivateKey(bytes([n]) * 32) for n in range(3))


class Journal:
    """A chain of entries about nothing, that can be continued in two ways."""

    def __init__(self, entries=(), key=OWNER):
        self.entries, self.key = list(entries), key

    def grow(self, count, flavour=0):
        for _ in range(count):
            previous = digest(self.entries[-1]) if self.entries else GENESIS
            number = len(self.entries) + 1
            entry = Entry(number, previous, number, digest(bytes([flavour])))
            self.entries.append(sign(self.key, entry).encode())
        return self

    def fork(self):
        return Journal(self.entries, self.key)

    def checkpoint(self, sequence=None, at_us=5):
        sequence = len(self.entries) if sequence is None else sequence
        return sign(
            self.key, Checkpoint(self.key.peer, sequence, digest(self.entries[sequence - 1]), at_us, 0, 0)
        ).encode()

    def answer(self, fetch):
        return self.entries[fetch.after : fetch.after + fetch.most]


def tell(follower, data, journal):
    """Hear a checkpoint; whatever is fetched comes from this journal. Returns what else was done."""
    todo, done = follower.heard(data), []
    for _ in range(20):
        if not todo:
            return done
        action = todo.pop(0)
        if isinstance(action, Fetch):
            todo += follower.came(action.owner, action.after, journal.answer(action))
        else:
            done.append(action)
    raise AssertionError("it never ends")


def test_a_journal_that_grows_is_followed():
    follower, journal = Follower(US.peer), Journal().grow(3)
    assert tell(follower, journal.checkpoint(), journal) == [Spread(journal.checkpoint())]
    assert tell(follower, journal.checkpoint(), journal) == []
    journal.grow(5)
    assert tell(follower, journal.checkpoint(), journal) == [Spread(journal.checkpoint())]
    assert follower.head(OWNER.peer) == journal.checkpoint()
    # An old one, told late.
    assert tell(follower, journal.checkpoint(2, at_us=9), journal) == []
    assert follower.convicted == {}


def test_a_journal_that_grew_much_is_followed_in_steps():
    follower, journal = Follower(US.peer), Journal().grow(1)
    follower.heard(journal.checkpoint())
    journal.grow(FETCH_MAX + 10)
    assert tell(follower, journal.checkpoint(), journal) == [Spread(journal.checkpoint())]


@pytest.mark.parametrize("common", [0, 1, 5])
@pytest.mark.parametrize("ours", [1, 3])
@pytest.mark.parametrize("theirs", [1, 3, 7])
def test_two_histories_are_proved(common, ours, theirs):
    base = Journal().grow(common)
    one, other = base.fork().grow(ours), base.fork().grow(theirs, flavour=1)
    follower = Follower(US.peer)
    tell(follower, one.checkpoint(), one)
    # Whoever keeps the longer one has more to show.
    (convict,) = tell(follower, other.checkpoint(), max(one, other, key=lambda journal: len(journal.entries)))
    assert isinstance(convict, Convict)
    assert read_fork(convict.proof) == convict.owner == OWNER.peer
    assert len(convict.proof) < 600
    # Anybody can check it, and nobody needs it twice.
    stranger = Follower(OTHER.peer)
    assert stranger.proved(convict.proof) == [convict]
    assert stranger.proved(convict.proof) == []
    assert stranger.heard(one.checkpoint()) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.booleans()), max_size=12))
def test_an_honest_owner_is_never_convicted(steps):
    """Checkpoints of any age in any order, and senders that answer with nothing, part of it, or nonsense."""
    follower, journal = Follower(US.peer), Journal().grow(12)
    for kind, sequence, useful in steps:
        for action in follower.heard(journal.checkpoint(sequence, at_us=kind)):
            if not isinstance(action, Fetch):
                continue
            answer = journal.answer(action)
            wrong = [[], answer[:1], [b"nonsense"], Journal(key=OTHER).grow(3).entries][kind]
            done = follower.came(action.owner, action.after, answer if useful else wrong)
            assert not any(isinstance(each, Convict) for each in done)
    assert follower.convicted == {}
    assert tell(follower, journal.checkpoint(12, at_us=99), journal) in ([], [Spread(journal.checkpoint(12, at_us=99))])


def test_what_proves_nothing_convicts_nobody():
    journal = Journal().grow(3)
    other = Journal(key=OTHER).grow(3, flavour=1)
    pairs = [
        (journal.checkpoint(), journal.checkpoint(at_us=8)),
        (journal.entries[0], journal.entries[1]),
        (journal.entries[0], other.entries[0]),
        (journal.checkpoint(), journal.entries[2]),
        (journal.checkpoint(2), journal.checkpoint(3)),
        (b"nonsense", journal.entries[0]),
    ]
    for pair in pairs:
        with pytest.raises(EnvelopeError):
            prove(*pair)
    for data in (b"", b"nonsense", bytes(PROOF_BYTES_MAX + 1)):
        with pytest.raises(EnvelopeError):
            Follower(US.peer).proved(data)


def test_a_proof_is_made_in_one_form_and_read_in_either():
    base = Journal().grow(1)
    one, other = base.fork().grow(1), base.fork().grow(1, flavour=1)
    proof = prove(one.entries[1], other.entries[1])
    assert proof == prove(other.entries[1], one.entries[1])
    swapped = type(proof)(proof.other, proof.one)
    assert read_fork(swapped.encode()) == OWNER.peer


def test_statements_in_anothers_name_are_refused():
    journal = Journal().grow(2)
    forged = sign(OTHER, Checkpoint(OWNER.peer, 2, bytes(32), 1, 0, 0)).encode()
    with pytest.raises(EnvelopeError, match="owner first"):
        Follower(US.peer).heard(forged)
    with pytest.raises(EnvelopeError):
        prove(journal.checkpoint(), forged)
    witnessed = countersign(OTHER, sign(OWNER, Checkpoint(OWNER.peer, 2, bytes(32), 1, 0, 0))).encode()
    assert read_fork(prove(journal.checkpoint(), witnessed).encode()) == OWNER.peer


def test_who_has_lost_a_part_of_its_own_journal_is_told():
    journal = Journal().grow(5)
    digests = {number: digest(data) for number, data in enumerate(journal.entries[:3], 1)}
    follower = Follower(OWNER.peer, digests.get)
    assert follower.heard(journal.checkpoint(3)) == follower.heard(journal.checkpoint(1)) == []
    assert follower.heard(journal.checkpoint(5)) == [Behind(5)]
    assert follower.heard(Journal(journal.entries[:1]).grow(1, flavour=1).checkpoint()) == [Behind(2)]


def test_we_do_not_follow_ourselves_and_not_more_than_fit():
    own = Journal().grow(1)
    follower = Follower(OWNER.peer, lambda sequence: digest(own.entries[0]))
    assert follower.heard(own.checkpoint()) == []
    follower = Follower(US.peer)
    follower._followed.update({f"peer {n}": None for n in range(FOLLOWED_MAX)})
    follower.heard(Journal().grow(1).checkpoint())
    assert len(follower._followed) == FOLLOWED_MAX
    assert "peer 0" not in follower._followed
