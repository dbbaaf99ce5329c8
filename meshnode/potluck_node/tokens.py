"""Tokens for web endpoints that ask for one, in one file of which the secrets can only be checked."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path

import msgspec

from potluck import wire
from potluck.errors import InvalidError, NotFoundError, StoreFullError
from potluck.wire import tokens as messages

# More than anybody tells apart.
TOKENS_MAX = 1000
NOTE_MAX = 100
# As many as no one guesses, bytes: so a plain hash keeps the secret.
KEY_BYTES, SECRET_BYTES = 8, 32


class _Token(msgspec.Struct, frozen=True):
    key: str
    digest: str
    note: str
    created_us: int


class Tokens:
    """Raises `InvalidError` when the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens: dict[str, _Token] = {}
        if path.exists():
            try:
                found = msgspec.json.decode(path.read_bytes(), type=list[_Token])
            except (OSError, msgspec.DecodeError) as error:
                raise InvalidError(f"{path} cannot be read.", why=str(error), fix="Move it away.") from None
            self._tokens = {each.key: each for each in found}

    def admits(self, key: str, secret: str) -> bool:
        """Whether both belong together."""
        token = self._tokens.get(key)
        return token is not None and hmac.compare_digest(token.digest, _digest(secret))

    def answer(self, question: messages.TokenQuestion) -> wire.Message:
        """Raises `potluck.errors.Error`."""
        match question:
            case messages.MakeToken():
                return self._make(question)
            case messages.DropToken():
                if question.key not in self._tokens:
                    raise NotFoundError(f"There is no token {question.key[:NOTE_MAX]}.", fix="See `potluck token ls`.")
                self._keep({key: each for key, each in self._tokens.items() if key != question.key})
        facts = (messages.TokenFacts(each.key, each.note, each.created_us) for each in self._tokens.values())
        return messages.Tokens(question.question, tuple(facts))

    def _make(self, question: messages.MakeToken) -> messages.TokenMade:
        if len(self._tokens) >= TOKENS_MAX:
            raise InvalidError(f"There are {TOKENS_MAX} tokens.", fix="Remove some: potluck token rm KEY")
        key, secret = f"pk-{secrets.token_hex(KEY_BYTES)}", f"ps-{secrets.token_urlsafe(SECRET_BYTES)}"
        token = _Token(key, _digest(secret), question.note[:NOTE_MAX], time.time_ns() // 1000)
        self._keep({**self._tokens, key: token})
        return messages.TokenMade(question.question, key, secret)

    def _keep(self, tokens: dict[str, _Token]) -> None:
        """On disk first, whole or not at all."""
        new = self._path.with_suffix(".new")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(list(tokens.values())))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise StoreFullError("The tokens cannot be recorded.", why=str(error), fix="Make room.") from None
        self._tokens = tokens


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
