"""Tokens for web endpoints that ask for one, in the database of shared state: nodes that share that share them.

Of each secret only a hash is kept, locked with the key of deployed apps: whoever has the database alone adds none.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio
from sqlalchemy import delete, insert, select

from potluck import wire
from potluck.errors import CorruptDataError, Error, InvalidError, NotFoundError, RefusedError, RemoteProtocolError
from potluck.wire import tokens as messages
from potluck_ledger.sealing import Vault
from potluck_node.locks import unlocked
from potluck_node.state.app_key import AppKey
from potluck_node.state.app_tables import TOKENS
from potluck_node.state.service import State
from potluck_node.state.work import APPS_CHANGED, Work

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.gateway")

# More than anybody tells apart.
TOKENS_MAX = 1000
NOTE_MAX = 100
# As many as no one guesses, bytes: so a plain hash keeps the secret.
KEY_BYTES, SECRET_BYTES = 8, 32
# After the database did not answer, until it is asked again, seconds.
RETRY_S = 1.0

_CONTEXT = "web token"


class _Token(msgspec.Struct, frozen=True):
    key: str
    digest: str
    note: str
    created_us: int


class Tokens:
    """`old` is the file in which they were before they were shared. Raises `InvalidError` when that cannot be read."""

    def __init__(self, state: State, key: AppKey, old: Path) -> None:
        self._state, self._key, self._old = state, key, old
        self._tokens: dict[str, _Token] = {}
        self._news = trio.Event()
        self._moving = _read_file(old)
        state.on_apps.append(lambda: self._news.set())

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Know them, and follow what other nodes make of them, until cancelled."""
        await self._follow()
        task_status.started()
        while True:
            await self._news.wait()
            self._news = trio.Event()
            try:
                await self._follow()
            except Error:
                await trio.sleep(RETRY_S)
                self._news.set()

    def admits(self, key: str, secret: str) -> bool:
        """Whether both belong together."""
        token = self._tokens.get(key)
        return token is not None and hmac.compare_digest(token.digest, _digest(secret))

    async def answer(self, question: messages.TokenQuestion) -> wire.Message:
        """Raises `potluck.errors.Error`."""
        made: messages.TokenMade | None = None
        match question:
            case messages.MakeToken():
                made = await self._make(question)
            case messages.DropToken():
                await self._state.transact(lambda work: self._drop(work, question.key))
        await self._follow()
        if made:
            return made
        facts = (messages.TokenFacts(each.key, each.note, each.created_us) for each in self._tokens.values())
        return messages.Tokens(question.question, tuple(facts))

    async def _make(self, question: messages.MakeToken) -> messages.TokenMade:
        key, secret = f"pk-{secrets.token_hex(KEY_BYTES)}", f"ps-{secrets.token_urlsafe(SECRET_BYTES)}"

        def add(work: Work) -> None:
            self._add(work, _Token(key, _digest(secret), question.note[:NOTE_MAX], work.now_us))

        await self._state.transact(add)
        return messages.TokenMade(question.question, key, secret)

    # In the database

    async def _follow(self) -> None:
        self._tokens = await self._state.transact(self._all)
        if self._moving and self._key.vault:
            self._old.unlink(missing_ok=True)
            self._moving = []

    def _all(self, work: Work) -> dict[str, _Token]:
        self._key.share(work)
        vault = self._key.vault
        if vault is None:
            return {}
        found = self._open_all(work, vault)
        for token in self._moving:
            if token.key not in found:
                self._add(work, token)
                found[token.key] = token
        return found

    @staticmethod
    def _open_all(work: Work, vault: Vault) -> dict[str, _Token]:
        found = {}
        for key, locked in work.db.execute(select(TOKENS.c.key, TOKENS.c.locked).order_by(TOKENS.c.key)).all():
            try:
                token = wire.decode(unlocked(vault, bytes(locked), _CONTEXT), _Token)
            except (CorruptDataError, RemoteProtocolError):
                token = None
            if token and token.key == key:
                found[key] = token
            else:
                log.warning("the database has a token, %.40s, that no node of ours made", key)
        return dict(sorted(found.items(), key=lambda each: each[1].created_us))

    def _add(self, work: Work, token: _Token) -> None:
        if self._key.vault is None:
            raise RefusedError(
                "This node cannot make tokens.",
                why="no node that has the key of the database that it shares has handed it over",
                fix="Name this node's peer id in the setting `trust` of a node that has it, and start that.",
            )
        if len(self._tokens) >= TOKENS_MAX:
            raise InvalidError(f"There are {TOKENS_MAX} tokens.", fix="Remove some: potluck token rm KEY")
        locked = self._key.vault.lock(wire.encode(token), _CONTEXT)
        work.db.execute(insert(TOKENS).values(key=token.key, locked=locked))
        work.tell(APPS_CHANGED)

    @staticmethod
    def _drop(work: Work, key: str) -> None:
        if not work.db.execute(delete(TOKENS).where(TOKENS.c.key == key)).rowcount:
            raise NotFoundError(f"There is no token {key[:NOTE_MAX]}.", fix="See `potluck token ls`.")
        work.tell(APPS_CHANGED)


def _read_file(path: Path) -> list[_Token]:
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[_Token])
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidError(f"{path} cannot be read.", why=str(error), fix="Move it away.") from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
