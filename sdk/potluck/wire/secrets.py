"""Clients ↔ local node: secrets that are kept under a name. Questions as in `control`."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message

# Secrets of one node, and variables and bytes of one: environments that programs can be started with.
SECRETS_MAX, VARIABLES_MAX, SECRET_BYTES_MAX = 1000, 100, 64 << 10
NAME_MAX = 64

# What is done where there is one of that name already.
REFUSE, KEEP, REPLACE, MERGE = "refuse", "keep", "replace", "merge"


class KeepSecret(Message, frozen=True):
    """Keep variables under a name. `existing` is refuse, keep (what is there), replace or merge (with what must be
    there). Answered by `Done`."""

    question: int
    name: str
    values: dict[str, str]
    existing: str = REFUSE

    def __repr__(self) -> str:
        """Without the values, for logs."""
        return f"KeepSecret({self.question}, {self.name})"


class ForgetSecret(Message, frozen=True):
    """Answered by `Done`, or a refusal (`not-found`)."""

    question: int
    name: str


class AskSecrets(Message, frozen=True):
    """Answered by `Secrets`."""

    question: int


class AskSecret(Message, frozen=True):
    """Its values, for a program of the node's user. Answered by `SecretValues`, or a refusal (`not-found`)."""

    question: int
    name: str


class SecretFacts(msgspec.Struct, frozen=True, array_like=True):
    """What may be shown of a secret. Times are Unix microseconds; `used_us` is 0 before its first use."""

    name: str
    variables: tuple[str, ...]
    created_us: int
    used_us: int = 0


class Secrets(Message, frozen=True):
    """The newest first."""

    question: int
    secrets: tuple[SecretFacts, ...]


class SecretValues(Message, frozen=True):
    question: int
    values: dict[str, str]
    created_us: int = 0

    def __repr__(self) -> str:
        """Without the values, for logs."""
        return f"SecretValues({self.question})"


SecretQuestion = KeepSecret | ForgetSecret | AskSecrets | AskSecret
SecretReply = Secrets | SecretValues
