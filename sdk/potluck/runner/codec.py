"""The messages of `potluck.wire.worker` without msgspec, whose import takes longer than starting the interpreter.

A message is a list headed by its class name. `tests/sdk/runner/test_codec.py` holds this against msgspec.
Format: https://github.com/msgpack/msgpack/blob/master/spec.md, as far as the messages use it.
"""

from __future__ import annotations

import os
import struct

# These repeat `wire.common`, `wire.worker` and `frames`, which would load msgspec; a test compares them.
PROTOCOL = 1
PAYLOAD_BYTES_MAX = 256 << 20
FRAME_BYTES_MAX = 257 << 20
LOG_BYTES_MAX = 64 << 10
ITEMS_AHEAD_MAX, ITEM_BYTES_AHEAD_MAX = 64, 64 << 20
FUNCTION_FIELDS = (
    "app",
    "name",
    "image",
    "python",
    "module",
    "qualname",
    "pickled",
    "resources",
    "timeout_us",
    "retries",
    "env",
    "imports",
    "tier",
    "network",
    "parameters",
    "scaling",
    "sharing",
    "generator",
    "snapshot",
    "startup_timeout_us",
    "region",
    "labels",
    "secrets",
    "salt",
)

# One read of the socket, bytes: the most that a Unix socket hands over at once by default.
READ_BYTES = 256 << 10

_SIZED = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I"}
_NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}

Value = object
Message = list[Value]


def pack(value: Value) -> bytes:
    """Encode nested lists of None, bool, int, str and bytes."""
    parts: list[bytes] = []
    _pack(value, parts)
    return b"".join(parts)


def _pack(value: Value, parts: list[bytes]) -> None:
    if value is None:
        parts.append(b"\xc0")
    elif isinstance(value, bool):
        parts.append(b"\xc3" if value else b"\xc2")
    elif isinstance(value, int):
        parts.append(struct.pack(">Bq", 0xD3, value) if value < 0 else struct.pack(">BQ", 0xCF, value))
    elif isinstance(value, str):
        data = value.encode("utf-8", "replace")
        parts += (struct.pack(">BI", 0xDB, len(data)), data)
    elif isinstance(value, bytes):
        parts += (struct.pack(">BI", 0xC6, len(value)), value)
    elif isinstance(value, list | tuple):
        parts.append(struct.pack(">BI", 0xDD, len(value)))
        for item in value:
            _pack(item, parts)
    else:
        raise TypeError(f"a message cannot hold {type(value).__name__}")


def unpack(data: bytes) -> Value:
    """Decode what `pack`, or msgspec, made. Raises `ValueError` for anything else."""
    try:
        value, end = _unpack(data, 0)
    except (struct.error, IndexError):
        raise ValueError("the message is cut off") from None
    if end != len(data):
        raise ValueError("bytes follow the message")
    return value


def _unpack(data: bytes, at: int) -> tuple[Value, int]:
    head = data[at]
    at += 1
    if head <= 0x7F or head >= 0xE0:
        return (head if head <= 0x7F else head - 256), at
    if head in _CONSTANTS:
        return _CONSTANTS[head], at
    if head in _NUMBERS:
        form = _NUMBERS[head]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    return _unpack_sized(data, at, head)


def _unpack_sized(data: bytes, at: int, head: int) -> tuple[Value, int]:
    if 0xA0 <= head <= 0xBF:
        size, kind = head & 0x1F, "str"
    elif 0x90 <= head <= 0x9F:
        size, kind = head & 0x0F, "list"
    elif head in _SIZED:
        size = struct.unpack_from(_SIZED[head], data, at)[0]
        at += struct.calcsize(_SIZED[head])
        kind = "bytes" if head <= 0xC6 else "str" if head <= 0xDB else "list"
    else:
        raise ValueError(f"unknown msgpack type {head:#x}")
    if kind == "list":
        return _unpack_list(data, at, size)
    body = data[at : at + size]
    if len(body) != size:
        raise ValueError("the message is cut off")
    return (body.decode() if kind == "str" else body), at + size


def _unpack_list(data: bytes, at: int, size: int) -> tuple[list[Value], int]:
    items = []
    for _ in range(size):
        item, at = _unpack(data, at)
        items.append(item)
    return items, at


def read_message(fd: int) -> Message | None:
    """Block for the next message; None at the end of the stream."""
    header = _read_exactly(fd, 4)
    if header is None:
        return None
    size = int.from_bytes(header, "big")
    if size > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {size} bytes is over the limit of {FRAME_BYTES_MAX}")
    body = _read_exactly(fd, size)
    return None if body is None else check_message(unpack(body))


def check_message(value: Value) -> Message:
    """Raises `ValueError` unless `value` is a list headed by a name."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ValueError("not a message")
    return value


def write_message(fd: int, message: Message) -> None:
    """Write one frame; blocks while the other side does not read."""
    body = pack(message)
    pending = memoryview(struct.pack(">I", len(body)) + body)
    while pending:
        pending = pending[os.write(fd, pending) :]


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts = []
    while size:
        data = os.read(fd, min(size, READ_BYTES))
        if not data:
            return None
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
