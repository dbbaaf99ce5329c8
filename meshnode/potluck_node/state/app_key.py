"""The key with which deployed functions are locked, which nodes of one database hand to those that they trust.

It is kept sealed for each of them: whoever has the database alone, or is a node that nobody trusts, reads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from sqlalchemy import insert, select, update

from potluck_ledger.keys import KEY_BYTES, PrivateKey, PublicKey
from potluck_ledger.sealing import SealError, Vault, seal, unseal
from potluck_node.state.app_tables import KEYS
from potluck_node.state.work import APPS_CHANGED, Work

_CONTEXT = "potluck: key of deployed apps"


class AppKey:
    """`key` is the node's own; `trusts` says to which nodes it may be handed."""

    def __init__(self, key: PrivateKey, trusts: Callable[[str], bool]) -> None:
        self._key, self._trusts = key, trusts
        self._secret = b""
        self.vault: Vault | None = None

    def share(self, work: Work) -> None:
        """Get it, or make it when nobody has one; and hand it to those who ask for it."""
        if not self._secret:
            self._get(work)
        for node in work.db.execute(select(KEYS.c.node).where(KEYS.c.sealed.is_(None))).scalars().all():
            if self._secret and self._trusts(node):
                self._hand_to(work, node)

    def _get(self, work: Work) -> None:
        rows = {row.node: row.sealed for row in work.db.execute(select(KEYS))}
        mine = self._key.peer
        if rows.get(mine):
            self._open(rows[mine])
        elif not any(rows.values()):
            self._open(seal(self._key.public, os.urandom(KEY_BYTES), _CONTEXT))
            self._hand_to(work, mine, new=mine not in rows)
        elif mine not in rows:
            work.db.execute(insert(KEYS).values(node=mine, sealed=None))
            work.tell(APPS_CHANGED)

    def _open(self, sealed: bytes) -> None:
        self._secret = unseal(self._key, bytes(sealed), _CONTEXT)
        self.vault = Vault(PrivateKey(self._secret))

    def _hand_to(self, work: Work, node: str, new: bool = False) -> None:
        try:
            sealed = seal(PublicKey.of_peer(node), self._secret, _CONTEXT)
        except (SealError, ValueError):
            return  # no node of ours
        if new:
            work.db.execute(insert(KEYS).values(node=node, sealed=sealed))
        else:
            work.db.execute(update(KEYS).where(KEYS.c.node == node).values(sealed=sealed))
        work.tell(APPS_CHANGED)
