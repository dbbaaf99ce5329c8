"""What this node knows of the peers of its mesh: their levels, and what its own verdicts and receipts say of them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from potluck import wire
from potluck.verify import parsed
from potluck.wire import verify as messages
from potluck_node.clock import Clock
from potluck_node.core.levels import Levels
from potluck_node.core.offers import OfferBook
from potluck_node.core.reputation import Reputation
from potluck_node.evidence import EvidenceStore
from potluck_node.transport.interface import Transport

if TYPE_CHECKING:
    from potluck_node.node import Node

log = logging.getLogger("potluck.strangers")


class Strangers:
    """`name` is our own. `reputation` is the call core's; what an earlier run knew is put into it. Raises
    `InvalidError`."""

    def __init__(
        self, path: Path, name: str, mesh: str, reputation: Reputation, levels: Levels, book: OfferBook,
        transport: Transport, clock: Clock,
    ) -> None:  # fmt: skip
        self._store = EvidenceStore(path)
        self._name, self._mesh, self._reputation, self._levels, self._book = name, mesh, reputation, levels, book
        self._transport, self._clock = transport, clock
        reputation.records.update(self._store.records())

    def close(self) -> None:
        self._store.close()

    def judged(self, evidence: messages.EvidenceFacts) -> None:
        """Keep a verdict. A disk that is full costs the evidence, not the call."""
        try:
            self._store.add(evidence)
            self._keep(vote.peer for vote in evidence.votes)
        except sqlite3.Error as error:
            log.error("evidence cannot be kept: %s", error)

    def billed(self, peer: str, honest: bool) -> None:
        """A receipt was signed, or refused since it claims too much."""
        if peer == self._levels.us:
            return
        self._reputation.billed(peer, honest, self._clock.now_us())
        try:
            self._keep([peer])
        except sqlite3.Error as error:
            log.error("what is known of %s cannot be kept: %s", peer, error)

    def _keep(self, peers: Iterable[str]) -> None:
        records = self._reputation.records
        self._store.keep((peer, records[peer]) for peer in peers if peer in records)

    def answer(self, question: messages.StrangerQuestion) -> wire.Message:
        """For clients."""
        if isinstance(question, messages.AskEvidence):
            return messages.EvidenceKept(question.question, self._store.newest(question.peer))
        now_us = self._clock.now_us()
        names = {offer.peer: offer.name for offer in self._book.fresh(now_us)}
        names[self._levels.us] = self._name
        known = [self._levels.us, *sorted(names), *sorted(self._transport.peers()), *sorted(self._reputation.records)]
        peers = list(dict.fromkeys(known))[: messages.PEERS_MAX]
        facts = tuple(self._facts(peer, names.get(peer, peer[-8:]), now_us) for peer in peers)
        return messages.PeersKnown(question.question, self._mesh, now_us, facts)

    def _facts(self, peer: str, name: str, now_us: int) -> messages.PeerFacts:
        standing, record = self._levels.of(peer), self._reputation.of(peer, now_us)
        banned = record.until_us if record.until_us > now_us else 0
        return messages.PeerFacts(
            peer, name, standing.level, standing.why, standing.code, round(record.right, 3), round(record.wrong, 3),
            record.score, banned, record.why if banned else "",
        )  # fmt: skip


def default_rule(mode: str) -> messages.Verification | None:
    """What the setting `verify_strangers` asks for. Only bytes are compared: no program is there to judge."""
    needed, most, adaptive = parsed(mode)
    return None if mode == "none" else messages.Verification(needed, most, adaptive)


def of(node: Node, clock: Clock) -> Strangers:
    """Those of a node, told of what its calls show."""
    caller, settings = node.caller, node.settings
    made = Strangers(
        node.home.strangers, settings.name, settings.mesh, caller.core.reputation, node.levels, node.book,
        node.transport, clock,
    )  # fmt: skip
    caller.on_judged, caller.on_billed = made.judged, made.billed
    caller.core.checking.default = default_rule(settings.verify_strangers)
    return made
