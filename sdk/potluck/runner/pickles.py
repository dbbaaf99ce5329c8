"""Pickles with their large buffers (arrays) beside them, PEP 574: written from where they are, read where they lie.

A payload is a plain pickle, or: a mark, the sizes of the pickle and of each buffer, then these, aligned for any array.
"""

from __future__ import annotations

import _pickle
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Buffer = bytes | bytearray | memoryview

# No pickle of protocol 5 begins so.
MARK = b"PL5\x00"
_COUNT, _SIZE = struct.Struct("<I"), struct.Struct("<Q")

# Buffers begin at multiples of this, bytes: a cache line, and enough for every vector instruction.
ALIGNMENT = 64

# Smaller buffers stay in the pickle, bytes: beside it each costs its own slice.
BUFFER_BYTES_MIN = 16 << 10


def dump(dumps: Callable[..., bytes], value: object) -> list[Buffer]:
    """Pickle with `dumps`, of `pickle` or `cloudpickle`. The parts, joined, are what `load` takes."""
    buffers: list[memoryview] = []

    def aside(buffer: _pickle.PickleBuffer) -> bool:
        """False puts it aside; what is not contiguous cannot be."""
        try:
            view = buffer.raw()
        except BufferError:
            return True
        if len(view) < BUFFER_BYTES_MIN:
            return True
        buffers.append(view)
        return False

    data = dumps(value, protocol=5, buffer_callback=aside)
    return _laid_out([memoryview(data), *buffers]) if buffers else [data]


def load(payload: Buffer) -> Any:
    """Unpickle. Arrays can be written to; those of a payload in memory of its own lie in it."""
    if payload[: len(MARK)] != MARK:
        return _pickle.loads(payload)
    view = memoryview(payload)
    if view.readonly:
        view = memoryview(bytearray(view))
    pickled, *buffers = _found(view)
    return _pickle.loads(pickled, buffers=buffers)


def _laid_out(views: list[memoryview]) -> list[Buffer]:
    head = MARK + _COUNT.pack(len(views)) + b"".join(_SIZE.pack(len(view)) for view in views)
    parts: list[Buffer] = [head, _padding(len(head))]
    for view in views:
        parts += (view, _padding(len(view)))
    return parts


def _found(view: memoryview) -> list[memoryview]:
    """Raises `ValueError` when the sizes do not fit."""
    at = len(MARK) + _COUNT.size
    (count,) = _COUNT.unpack_from(view, len(MARK))
    if count > (len(view) - at) // _SIZE.size:
        raise ValueError("a payload is cut off")
    sizes = [_SIZE.unpack_from(view, at + number * _SIZE.size)[0] for number in range(count)]
    at = _aligned(at + count * _SIZE.size)
    found = []
    for size in sizes:
        if size > len(view) - at:
            raise ValueError("a payload is cut off")
        found.append(view[at : at + size])
        at = _aligned(at + size)
    return found


def _aligned(at: int) -> int:
    return -(-at // ALIGNMENT) * ALIGNMENT


def _padding(size: int) -> bytes:
    return bytes(_aligned(size) - size)
