"""Fetches the journals of a mesh through the local node, for `potluck ledger audit`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from potluck.cli.connect import client
from potluck.wire import audit as messages
from potluck.wire.control import Done

if TYPE_CHECKING:
    from potluck.client import Client
    from potluck_ledger.crawl import Shown
    from potluck_ledger.journal import Record

# Peers that are asked at the same time, as many as the node itself asks.
AT_ONCE = 8
# What is held in memory, some 3 KiB each, of one journal and of all; larger ones are audited as exported files.
ENTRIES_MAX, ALL_ENTRIES_MAX = 100_000, 300_000
# For one journal: a page of 300 entries comes in a few milliseconds. Seconds.
PEER_TIMEOUT_S = 60.0


def known() -> messages.JournalsKnown:
    """Of whose journals the node knows, and the proofs that it keeps."""
    connection = client()
    try:
        return connection.ask(messages.AskJournals, messages.JournalsKnown)
    finally:
        connection.close()


def spread(proofs: Sequence[bytes]) -> None:
    """Have the node tell all others."""
    connection = client()
    try:
        for proof in proofs:
            connection.ask(lambda number, proof=proof: messages.TellFork(number, proof), Done)  # type: ignore[misc]
    finally:
        connection.close()


class Crawl:
    """Asks each of some peers for its whole journal. `heads` are checkpoints that were heard of them."""

    def __init__(self, heads: dict[str, bytes]) -> None:
        self._heads, self._room = heads, ALL_ENTRIES_MAX

    def run(self, peers: Sequence[str]) -> list[Shown]:
        """In the order of `peers`; those that do not answer, or show what does not hold, with the problem."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                return list(pool.map(self._one, peers))
            finally:
                # Those that still run, when somebody breaks it off, end with the page that they wait for.
                self._room = -1

    def _one(self, peer: str) -> Shown:
        from potluck_ledger.crawl import Shown, examine

        records, problem = self._records(peer)
        return Shown(peer, [], problem) if problem else examine(peer, records, self._heads.get(peer, b""))

    def _records(self, peer: str) -> tuple[list[Record], str]:
        """All that it shows, or what is wrong."""
        from potluck_ledger.journal import Record

        records: list[Record] = []
        deadline, connection = time.monotonic() + PEER_TIMEOUT_S, client()
        try:
            while True:
                page = self._page(connection, peer, len(records))
                records += [Record(*pair) for pair in page.records]
                self._room -= len(page.records)
                if page.problem or not page.more:
                    return records, page.problem
                if len(records) > ENTRIES_MAX or self._room < 0:
                    return [], "there are too many entries to fetch: audit an export of it (potluck ledger export)"
                if time.monotonic() > deadline:
                    return [], f"it did not show all of its journal within {PEER_TIMEOUT_S:g} s"
        finally:
            connection.close()

    def _page(self, connection: Client, peer: str, after: int) -> messages.PeerJournal:
        return connection.ask(lambda number: messages.AskPeerJournal(number, peer, after), messages.PeerJournal)
