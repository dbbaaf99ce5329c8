"""What is taken from peers that are not trusted: data, never what only running code can rebuild. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from potluck.errors import SerializationError
from potluck.runner.plain import MAGIC
from potluck.wire import Failure
from potluck.wire.lease import InputDone

if TYPE_CHECKING:
    from typing_extensions import Buffer


def is_data(payload: Buffer) -> bool:
    """Whether reading it runs no code that it chooses."""
    return bytes(memoryview(payload)[: len(MAGIC)]) == MAGIC


def only_data(done: InputDone, peer: str) -> InputDone:
    """An outcome without what could run code here."""
    if done.payload and not is_data(done.payload):
        error = SerializationError(
            "The result is a pickle, which would run code of whoever made it.",
            why=f"the peer {peer[-8:]} is not trusted",
            fix=f'If you trust it, write trust = "mesh" or trust = ["{peer}"] into config.toml of this node.',
        )
        return replace(done, payload=None, failure=Failure.of(error))
    if done.exception and done.exception.pickled:
        return replace(done, exception=replace(done.exception, pickled=b""))
    return done
