"""A data folder that was restored from a backup, or copied while both go on: no fork where one can be avoided, and
nobody goes on who made one."""

import random
import sqlite3

import pytest
from tests.ledger.crash_points import US, receipt

from potluck_ledger.entries import Entry, read
from potluck_ledger.journal import Journal
from potluck_ledger.keys import PrivateKey
from potluck_ledger.sync import Behind, Convict, Fetch, Follower, Spread, Twin

PEERS = [PrivateKey(bytes([number]) * 32) for number in range(2, 6)]


class Copy:
    """One node with the key; `records` are what its data folder had."""

    def __init__(self, records=()):
        self.journal = Journal(":memory:", US, lambda path: sqlite3.connect(path, isolation_level=None))
        for record in records:
            self.journal.append(record.content, read(record.entry, Entry, US.peer).at_us)
        self.follower = Follower(US.peer, self.journal.digest_of)

    def sign(self, lease):
        if not self.journal.blocked:
            self.journal.append(receipt(lease, 5), 1)

    def told(self, actions):
        if any(isinstance(action, Behind | Twin) for action in actions):
            self.journal.block("not alone")

    def ask(self, peer):
        """As a node does when it is connected, and now and then."""
        if head := peer.head(US.peer):
            self.told(self.follower.heard(head))


def tell(peers, copy, first):
    """A head is gossiped from peer to peer, and so is a proof, which comes back to all who have the key."""
    proofs, todo = [], [(peer, copy.journal.checkpoint(1).encode()) for peer in first]
    while todo:
        peer, checkpoint = todo.pop()
        actions = peer.heard(checkpoint)
        while actions:
            action = actions.pop()
            if isinstance(action, Fetch):
                entries = [record.entry for record in copy.journal.records(action.after, action.most)]
                actions += peer.came(action.owner, action.after, entries)
            elif isinstance(action, Spread):
                todo += [(other, action.checkpoint) for other in peers if other is not peer]
            elif isinstance(action, Convict):
                proofs.append(action.proof)
    return proofs


@pytest.mark.parametrize("seed", range(40))
def test_of_two_live_copies_at_least_one_stops(seed):
    """They start alike, and tell whom they reach. What they tell each other's peers is never heard by themselves."""
    dice = random.Random(seed)
    peers, original = [Follower(key.peer) for key in PEERS], Copy()
    for number in range(dice.randrange(4)):
        original.sign(f"before-{number}")
    copies = [original, Copy(original.journal.records())]
    for number in range(8):
        copy = dice.choice(copies)
        if dice.randrange(2):
            copy.ask(dice.choice(peers))
        copy.sign(f"lease-{number}")
        for proof in tell(peers, copy, dice.sample(peers, dice.randrange(1, 3))):
            for each in copies:
                each.told(each.follower.proved(proof))
    for copy in copies:
        copy.ask(peers[0])
    parted = len({copy.journal.digest_of(copy.journal.head()[0]) for copy in copies}) > 1
    assert parted <= any(copy.journal.blocked for copy in copies)
    if all(US.peer in peer.convicted for peer in peers):
        assert all(copy.journal.blocked for copy in copies)


@pytest.mark.parametrize("seed", range(20))
def test_an_old_backup_that_asks_before_it_signs_makes_no_fork(seed):
    dice = random.Random(seed)
    peers, node = [Follower(key.peer) for key in PEERS], Copy()
    node.sign("first")
    backup = list(node.journal.records())
    for number in range(dice.randrange(1, 5)):
        node.sign(f"lease-{number}")
        tell(peers, node, dice.sample(peers, 1))
    restored = Copy(backup)
    restored.ask(dice.choice(peers))
    restored.sign("next")
    assert restored.journal.blocked
    assert tell(peers, restored, peers) == []
    assert not any(peer.convicted for peer in peers)


def test_a_backup_that_does_not_ask_is_convicted():
    """What asking is for."""
    peers, node = [Follower(key.peer) for key in PEERS], Copy()
    node.sign("first")
    restored = Copy(node.journal.records())
    node.sign("second")
    tell(peers, node, peers[:1])
    restored.sign("another second")
    assert tell(peers, restored, peers[:1])
