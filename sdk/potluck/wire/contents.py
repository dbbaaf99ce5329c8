"""Large payloads leave their message and go ahead of it (`potluck.frames`); at the other side they are put back.

A payload in memory of its own is a `memoryview`, which whoever only passes it on may take for the bytes that it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import msgspec

from potluck.errors import RemoteProtocolError
from potluck.runner.memory import INLINE_BYTES_MAX

MessageT = TypeVar("MessageT", bound=msgspec.Struct)


def split(message: MessageT) -> tuple[MessageT, Sequence[bytes]]:
    """The message with nothing where its large payloads were, and these in order."""
    payload = getattr(message, "payload", None)
    if payload is not None and len(payload) > INLINE_BYTES_MAX:
        return msgspec.structs.replace(message, payload=b""), (payload,)
    payloads = getattr(message, "payloads", None)
    if not payloads or all(len(each) <= INLINE_BYTES_MAX for each in payloads):
        return message, ()
    large = [each for each in payloads if len(each) > INLINE_BYTES_MAX]
    left = tuple(b"" if len(each) > INLINE_BYTES_MAX else each for each in payloads)
    return msgspec.structs.replace(message, payloads=left), large


def join(message: Any, contents: Sequence[memoryview]) -> Any:
    """Put `contents` back. Raises `RemoteProtocolError` when the message has no place for exactly these."""
    if not contents:
        return message
    coming = cast("Iterator[bytes]", iter(contents))
    if getattr(message, "payload", None) == b"":
        message = msgspec.structs.replace(message, payload=next(coming))
    elif empty := getattr(message, "payloads", ()):
        filled = tuple(each or next(coming, b"") for each in empty)
        message = msgspec.structs.replace(message, payloads=filled)
    if next(coming, None) is not None:
        raise RemoteProtocolError("A payload belongs to no message.")
    return message
