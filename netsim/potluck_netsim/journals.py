"""The journals of simulated nodes: told, followed and cosigned by the node's own cores, as `journal_sync.py` and
`witnesses.py` do with them; and one that keeps two."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from potluck import wire
from potluck.wire import journal as messages
from potluck_ledger.entries import Checkpoint, Entry, Receipt, parsed, read
from potluck_ledger.envelope import EnvelopeError, countersign, open_envelope
from potluck_ledger.journal import Journal
from potluck_ledger.sync import FETCH_MAX, Action, Behind, Convict, Fetch, Follower, Spread, Twin
from potluck_ledger.witness import NOTHING, Asked, Seen, joined
from potluck_netsim import facts
from potluck_netsim.node import Node
from potluck_node.core import events as ev
from potluck_node.journal_sync import ANSWER_TIMEOUT_S, PROOF_AGAIN_S
from potluck_node.witnesses import COSIGN_S, COSIGN_TIMEOUT_S

# Real nodes tell every 2 s what has changed; here each telling is flooded in the open, which costs its square.
TELL_US = 10_000_000
COSIGN_US, COSIGN_TIMEOUT_US = int(COSIGN_S * 1e6), int(COSIGN_TIMEOUT_S * 1e6)
PROOF_AGAIN_US = int(PROOF_AGAIN_S * 1e6)
ANSWER_TIMEOUT_US = int(ANSWER_TIMEOUT_S * 1e6)
# A mesh's witnesses, and how many of them must sign: two of three have one in common with any other two.
WITNESSES, NEEDED = 3, 2

Entries = tuple[bytes, ...]


class Watching(Node):
    """A node that follows the journals of others, for as long as it lives; what it keeps of them outlives it."""

    def be_born(self) -> None:
        super().be_born()
        self.journals = self.make_journals()

    def make_journals(self) -> SimJournals:
        return SimJournals(self)


class SimJournals:
    """What one life of a node knows of journals."""

    def __init__(self, node: Watching) -> None:
        self._node, self._world = node, node.world
        self._follower = Follower(node.peer, node.journal.digest_of)
        self._busy: set[str] = set()
        # Messages that were carried on, as gossipsub does whatever they say.
        self._carried: set[bytes] = set()
        for proof in node.journal.proofs():
            self._do(self._follower.proved(proof))
        dice = self._world.dice
        node.later(dice.randrange(TELL_US), self._tell_for_ever)
        node.later(dice.randrange(COSIGN_US), self._cosign_for_ever)
        node.later(PROOF_AGAIN_US, self._tell_proofs_again)
        self._turn = 0

    def _at(self, peer: str, do: Callable[[SimJournals], None]) -> None:
        """Let something happen at another node."""
        other = cast(Watching, self._node.network.hosts[peer])
        self._node.network.reach(self._node, peer, lambda: do(other.journals))

    def _others(self) -> list[str]:
        return [peer for peer in self._node.network.hosts if peer != self._node.peer]

    # Telling and following

    def _tell_for_ever(self) -> None:
        for peer in self._others():
            checkpoint = self.shown_to(peer).checkpoint(self._node.now_us).encode()
            self._gossip(messages.HeadTold(checkpoint), [peer])
        self._node.later(TELL_US, self._tell_for_ever)

    def _tell_proofs_again(self) -> None:
        """To those who were away: one at a time, in turn."""
        if proofs := list(self._follower.convicted.values()):
            self._gossip(messages.ForkTold(proofs[self._turn % len(proofs)]), self._others())
            self._turn += 1
        self._node.later(PROOF_AGAIN_US, self._tell_proofs_again)

    def shown_to(self, peer: str) -> Journal:
        """The journal that a peer is to believe in."""
        return self._node.journal

    def _gossip(self, message: messages.Gossip, peers: Sequence[str]) -> None:
        data = wire.encode(message)
        for peer in peers:
            if not self._world.chance(self._node.faults.gossip_lost_milli):
                self._at(peer, lambda other: other.heard(data))

    def heard(self, data: bytes) -> None:
        if data in self._carried:
            return
        self._carried.add(data)
        message = wire.decode(data, messages.Gossip)
        self._gossip(message, self._others())
        try:
            if isinstance(message, messages.HeadTold):
                self._do(self._follower.heard(message.checkpoint))
            else:
                self._do(self._follower.proved(message.proof))
        except EnvelopeError:
            self._world.tell(self._node.name, "ignores what it is told of a journal")

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Fetch):
                self._fetch(action)
            elif isinstance(action, Convict):
                self._convict(action)
            elif isinstance(action, Behind | Twin):
                self._world.fact(facts.Doubted(self._node.name))
            else:
                # It is carried on anyhow.
                assert isinstance(action, Spread)

    def _convict(self, action: Convict) -> None:
        self._node.journal.keep_proof(action.owner, action.proof)
        self._node.book.ban(action.owner, "it keeps two journals, which is proved")
        self._world.fact(facts.Convicted(self._node.name, self._node.network.hosts[action.owner].name))
        self._node.later(0, partial(self._node.caller.submit, ev.OffersChanged()))
        self._gossip(messages.ForkTold(action.proof), self._others())

    def _fetch(self, action: Fetch) -> None:
        come: list[Entries] = []

        def came(entries: Entries) -> None:
            come.append(entries)
            self._do(self._follower.came(action.owner, action.after, entries))

        self._ask(action.owner, action.after, action.most, came)
        self._node.later(ANSWER_TIMEOUT_US, lambda: None if come else self._follower.failed(action.owner))

    def _ask(self, owner: str, after: int, most: int, came: Callable[[Entries], None]) -> None:
        us = self._node.peer
        self._at(owner, lambda other: other.told(us, after, most, lambda entries: came(entries)))

    def told(self, asker: str, after: int, most: int, answer: Callable[[Entries], None]) -> None:
        """Somebody asks for entries of ours."""
        entries = tuple(record.entry for record in self.shown_to(asker).records(after, min(most, FETCH_MAX)))
        self._node.network.reach(self._node, asker, lambda: answer(entries))

    # Witnesses

    def histories(self) -> list[Journal]:
        """What we would have cosigned."""
        return [self._node.journal]

    def _cosign_for_ever(self) -> None:
        for journal in self.histories():
            if journal.head()[0]:
                self._have_cosigned(journal)
        self._node.later(COSIGN_US, self._cosign_for_ever)

    def _have_cosigned(self, journal: Journal) -> None:
        ours, answers = journal.checkpoint(self._node.now_us).encode(), list[bytes]()
        witnesses, us = self._others()[:WITNESSES], self._node.peer

        def signed(answer: bytes) -> None:
            answers.append(answer)
            if joined(ours, answers, witnesses, NEEDED):
                self._world.fact(facts.Witnessed(self._node.name, *journal.head()))

        for peer in witnesses:
            self._at(peer, lambda other: other.cosign(us, ours, signed))

    def cosign(self, owner: str, data: bytes, answer: Callable[[bytes], None]) -> None:
        """An owner asks us to cosign its head."""
        last = self._node.journal.cosigned(owner)
        if owner in self._busy or owner in self._follower.convicted:
            return
        try:
            asked = Asked(data, owner, Seen(*last) if last else NOTHING)
        except EnvelopeError as error:
            self._refuse(owner, error)
            return
        self._busy.add(owner)
        # An owner that shows nothing keeps us for no longer.
        self._node.later(COSIGN_TIMEOUT_US, partial(self._busy.discard, owner))
        self._look(asked, owner, data, answer)

    def _look(self, asked: Asked, owner: str, data: bytes, answer: Callable[[bytes], None]) -> None:
        if asked.is_shown:
            self._sign(asked, owner, data, answer)
            return

        def came(entries: Entries) -> None:
            try:
                asked.came(entries)
            except EnvelopeError as error:
                self._busy.discard(owner)
                self._refuse(owner, error)
            else:
                self._look(asked, owner, data, answer)

        self._ask(owner, asked.after, min(FETCH_MAX, asked.checkpoint.sequence - asked.after), came)

    def _sign(self, asked: Asked, owner: str, data: bytes, answer: Callable[[bytes], None]) -> None:
        head = asked.checkpoint.sequence, asked.checkpoint.head
        self._node.journal.keep_cosigned(owner, *head)
        self._busy.discard(owner)
        self._world.fact(facts.Cosigned(self._node.name, self._node.network.hosts[owner].name, *head))
        signed = countersign(self._node.key, open_envelope(data, Checkpoint.KIND)).encode()
        self._node.network.reach(self._node, owner, lambda: answer(signed))

    def _refuse(self, owner: str, error: EnvelopeError) -> None:
        self._world.fact(facts.NotCosigned(self._node.name, self._node.network.hosts[owner].name, str(error)))


class Forking(Watching):
    """Shows one half of the mesh all that it did, and the other a journal without what it used."""

    second: Journal | None = None
    _copied = 0

    def make_journals(self) -> SimJournals:
        return SimForks(self)

    def other(self) -> Journal:
        """As far as it is written."""
        if self.second is None:
            connect = partial(sqlite3.connect, isolation_level=None)
            self.second = Journal(Path(":memory:"), self.key, lambda path: connect(path))
        for record in self.journal.records(self._copied):
            self._copied += 1
            content = parsed(record.content)[1]
            if not (isinstance(content, Receipt) and content.caller == self.peer):
                self.second.append(record.content, read(record.entry, Entry, self.peer).at_us)
        return self.second

    def histories(self) -> facts.Histories:
        return facts.Histories(self.name, tuple(frozenset(each) for each in self.digests()))

    def digests(self) -> Iterator[set[bytes]]:
        """Those of all entries, of each of the two."""
        for journal in (self.journal, self.other()):
            yield {journal.digest_of(number + 1) or b"" for number in range(journal.head()[0])}


class SimForks(SimJournals):
    def __init__(self, node: Forking) -> None:
        self._forking = node
        super().__init__(node)

    def shown_to(self, peer: str) -> Journal:
        is_even = sorted(self._node.network.hosts).index(peer) % 2 == 0
        return self._forking.journal if is_even else self._forking.other()

    def histories(self) -> list[Journal]:
        return [self._forking.journal, self._forking.other()]
