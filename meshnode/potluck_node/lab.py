"""What a lab granted and what was used there, as far as this node knows: from its own journal and those of others."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from potluck_ledger.entries import Content, Grant, Membership, Receipt, Rule, Transfer, Voucher, parsed, read_content
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.house_rules import HouseRules, rule_key
from potluck_ledger.journal import GENESIS, Journal, Record, digest, follow
from potluck_ledger.quotas import Quotas
from potluck_ledger.usage import Usage
from potluck_node.core.quotas import is_of

log = logging.getLogger("potluck.lab")

# What is kept of others' journals: a receipt has 600 bytes. More is not counted, and the log says so.
KEPT_MAX = 1_000_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (digest BLOB PRIMARY KEY, content BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS followed (owner TEXT PRIMARY KEY, sequence INTEGER NOT NULL, head BLOB NOT NULL)
    STRICT, WITHOUT ROWID;
"""


class Lab:
    """`quotas` and `usage` are the pure part. Without `admins` there is no lab, and nothing is kept.

    The file is a copy of what others have signed: it is verified before it is kept, and may be deleted.
    """

    def __init__(self, path: Path, journal: Journal, mesh: str, admins: frozenset[str]) -> None:
        self.admins = admins
        self.usage = Usage()
        self.quotas = Quotas(mesh, admins, self.usage, is_of)
        self.house = HouseRules(mesh, admins, self.quotas.members)
        self._journal, self._own = journal, 0
        self._rules: dict[bytes, bytes] = {}
        self._db = sqlite3.connect(path if admins else ":memory:", isolation_level=None)
        self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")
        self._kept = 0
        for (content,) in self._db.execute("SELECT content FROM kept").fetchall() if admins else ():
            self._kept += 1
            self._count(bytes(content))
        self.catch_up()

    def catch_up(self) -> None:
        """Count what is new in our own journal."""
        if not self.admins:
            return
        for record in self._journal.records(self._own):
            self._own += 1
            self._count(record.content)

    def after(self, owner: str) -> int:
        """How many entries of a peer's journal were taken."""
        return self._followed(owner)[0]

    def _followed(self, owner: str) -> tuple[int, bytes]:
        row = self._db.execute("SELECT sequence, head FROM followed WHERE owner = ?", (owner,)).fetchone()
        return (int(row[0]), bytes(row[1])) if row else (0, GENESIS)

    def take(self, owner: str, records: Iterable[Record]) -> None:
        """The entries of a peer's journal behind those that were taken. Raises `JournalError` for such as are not one
        chain with them; then none counts."""
        listed = list(records)
        sequence, head = self._followed(owner)
        entries = list(follow(owner, sequence, head, listed))
        if not entries:
            return
        self._db.execute("BEGIN")
        for entry, record in zip(entries, listed, strict=True):
            if isinstance(entry.content, Receipt | Voucher | Transfer):
                self._keep(record.content)
        row = (owner, entries[-1].sequence, digest(listed[-1].entry))
        self._db.execute("INSERT OR REPLACE INTO followed VALUES (?, ?, ?)", row)
        self._db.execute("COMMIT")

    def take_rules(self, rules: Iterable[bytes]) -> None:
        """Grants and memberships from whomever. What does not hold, or is not an admin's, is passed over."""
        for data in rules:
            if digest(data) in self._rules:
                continue
            try:
                _, content = read_content(data)
            except EnvelopeError as error:
                log.info("ignoring a grant that does not hold: %s", error)
                continue
            if isinstance(content, Grant | Membership | Rule) and content.admin in self.admins:
                self._keep(data)

    def sign(self, content: bytes, now_us: int) -> None:
        """Put something of our own into the journal, and count it. Raises `EnvelopeError`, `JournalError`."""
        self._journal.append(content, now_us)
        self.catch_up()

    def rules(self) -> list[bytes]:
        """All that count here, in an order that all agree on."""
        return [data for _, data in sorted(self._rules.items())]

    def rules_digest(self) -> bytes:
        """The same for all who know the same."""
        return digest(b"".join(sorted(self._rules)))

    def _keep(self, data: bytes) -> None:
        if self._kept >= KEPT_MAX:
            log.warning("no more of other journals is kept: delete lab.sqlite to begin anew")
            return
        self._kept += self._db.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (digest(data), data)).rowcount
        self._count(data)

    def _count(self, data: bytes) -> None:
        envelope, content = parsed(data)
        self.usage.record(envelope, content)
        if self.quotas.record(content) or self.house.record(content):
            key = _key(content)
            self._rules = {known: each for known, each in self._rules.items() if _key(parsed(each)[1]) != key}
            self._rules[digest(data)] = data

    def close(self) -> None:
        self._db.close()


def _key(content: Content) -> tuple[str, ...]:
    """What a later rule replaces."""
    if isinstance(content, Grant):
        return content.scope, content.name, content.gpu_class
    if isinstance(content, Rule):
        return rule_key(content)
    assert isinstance(content, Membership)
    return content.group, content.member
