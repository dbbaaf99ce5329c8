"""Clients ↔ local node: tokens for web endpoints with `requires_proxy_auth`. Questions as in `control`."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message


class MakeToken(Message, frozen=True):
    """Make a token; `note` says for whom. Answered by `TokenMade`."""

    question: int
    note: str = ""


class AskTokens(Message, frozen=True):
    """Answered by `Tokens`."""

    question: int


class DropToken(Message, frozen=True):
    """From now on nobody gets in with it. Answered by `Tokens`, or a refusal (`not-found`)."""

    question: int
    key: str


class TokenMade(Message, frozen=True):
    """The secret is told this once."""

    question: int
    key: str
    secret: str


class TokenFacts(msgspec.Struct, frozen=True, array_like=True):
    key: str
    note: str
    created_us: int


class Tokens(Message, frozen=True):
    question: int
    tokens: tuple[TokenFacts, ...]


TokenQuestion = MakeToken | AskTokens | DropToken
TokenReply = TokenMade | Tokens
