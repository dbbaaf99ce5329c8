"""The messages of `potluck.wire.worker` without msgspec, whose import takes longer than starting the interpreter.

A message is a list headed by its class name. `tests/sdk/runner/test_codec.py` holds this against msgspec.
Format: https://github.com/msgpack/msgpack/blob/master/spec.md, as far as the messages use it.
"""

from __future__ import annotations

import _socket
import os
import struct
import sys

from .memory import check_sealed, mapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .memory import Buffer

# These repeat `wire.common`, `wire.worker` and `frames`, which would load msgspec; a test compares them.
PROTOCOL = 3
PAYLOAD_BYTES_MAX = 2 << 30
FRAME_BYTES_MAX = 257 << 20
CONTENT, DESCRIPTOR = 0x80000000, 0x80000001
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
    "web",
    "level",
    "volumes",
    "writable",
    "limit",
)

# One read of the socket, bytes: the most that a Unix socket hands over at once by default.
READ_BYTES = 256 << 10

_SIZED = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I"}
_NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}

# Descriptors that may come along with one header: the node sends one.
_FD_BYTES = 4
# Buffers of one writev(2): IOV_MAX is 1024.
_BUFFERS_MAX = 512

Value = object
Message = list[Value]


class Parts:
    """A payload that is sent ahead of its message, part by part."""

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self.buffers = [memoryview(each) for each in buffers if len(each)]
        self.size = sum(map(len, self.buffers))

    def __len__(self) -> int:
        return self.size


def pack(value: Value) -> bytes:
    """Encode nested lists of None, bool, int, str and bytes. In place of `Parts` is nothing: it goes ahead."""
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
    elif isinstance(value, Parts):
        _pack(b"", parts)
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


def read_message(fd: int) -> list[Any] | None:
    """Block for the next message of a socket; None at the end of the stream.

    Raises `ValueError` for what is no message, `OSError` when there is no memory for a payload.
    """
    contents: list[memoryview] = []
    while True:
        header, descriptor = _read_header(fd)
        if header in (CONTENT, DESCRIPTOR):
            content = _read_content(fd, descriptor if header == DESCRIPTOR else -1)
            if content is None:
                return None
            contents.append(content)
            continue
        if header > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {header} bytes is over the limit of {FRAME_BYTES_MAX}")
        body = _read_exactly(fd, header) if header >= 0 else None
        return None if body is None else _filled(check_message(unpack(body)), contents)


def check_message(value: Value) -> Message:
    """Raises `ValueError` unless `value` is a list headed by a name."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ValueError("not a message")
    return value


def write_message(fd: int, message: Message) -> None:
    """Write one frame, after the payloads that go ahead; blocks while the other side does not read."""
    for value in message:
        if isinstance(value, Parts):
            _write(fd, [struct.pack(">IQ", CONTENT, value.size), *value.buffers])
    body = pack(message)
    _write(fd, [struct.pack(">I", len(body)) + body])


def _write(fd: int, buffers: Iterable[Buffer]) -> None:
    pending = [memoryview(each) for each in buffers]
    while pending:
        written = os.writev(fd, pending[:_BUFFERS_MAX])
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if written:
            pending[0] = pending[0][written:]


def _filled(message: Message, contents: list[memoryview]) -> Message:
    """Put what came ahead where the message has empty payloads. Raises `ValueError` when not all fit."""
    waiting: list[Value] = list(reversed(contents))

    def fill(values: Message) -> Message:
        return [
            fill(value) if isinstance(value, list) else waiting.pop() if waiting and value == b"" else value
            for value in values
        ]

    filled = fill(message) if waiting else message
    if waiting:
        raise ValueError("a payload belongs to no message")
    return filled


def _read_header(fd: int) -> tuple[int, int]:
    """The header, -1 at the end of the stream, and the descriptor that came with it, or -1."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
    try:
        data, ancillary, _, _ = channel.recvmsg(4, _socket.CMSG_SPACE(_FD_BYTES), _socket.MSG_CMSG_CLOEXEC)
    finally:
        channel.detach()
    rest = _read_exactly(fd, 4 - len(data)) if data else None
    descriptor = int.from_bytes(ancillary[0][2][:_FD_BYTES], sys.byteorder) if ancillary else -1
    return (-1 if rest is None else int.from_bytes(data + rest, "big")), descriptor


def _read_content(fd: int, descriptor: int) -> memoryview | None:
    """A payload out of the stream, or in the memory of a descriptor."""
    head = _read_exactly(fd, 8)
    size = int.from_bytes(head or b"", "big")
    if size > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a payload of {size} bytes is over the limit of {PAYLOAD_BYTES_MAX}")
    if descriptor < 0:
        return _read_into(fd, mapped(-1, size)) if size else None
    try:
        check_sealed(descriptor, size)
        return mapped(descriptor, size)
    finally:
        os.close(descriptor)


def _read_into(fd: int, view: memoryview) -> memoryview | None:
    rest = view
    while rest:
        count = os.readv(fd, [rest])
        if not count:
            return None
        rest = rest[count:]
    return view


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts = []
    while size:
        data = os.read(fd, min(size, READ_BYTES))
        if not data:
            return None
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
