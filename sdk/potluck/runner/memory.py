"""Large payloads in sealed memory (memfd_create(2)): written once, then mapped by whoever is given its descriptor.

A payload is a `memoryview`, so that all who only pass it on can take it for bytes.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from _pickle import PickleBuffer
from fcntl import F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Buffer = bytes | bytearray | memoryview

# Payloads up to this travel inside their message. Each larger one costs a mapping (65,530 in a process, sysctl
# vm.max_map_count), so that a program can hold 16 GiB of the smallest of them.
INLINE_BYTES_MAX = 256 << 10

# With these nobody can change what is read, or cut it off under the reader, which would end him with SIGBUS.
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE

# <sys/mman.h>: a private mapping may be written to, which changes nobody else's; it reserves nothing for that.
_READ_WRITE, _PRIVATE, _ANONYMOUS, _NO_RESERVE = 0x1 | 0x2, 0x02, 0x20, 0x4000
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_int64)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Sealed:
    """The memory behind a payload: `descriptor` is open as long as the payload lives."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size = descriptor, size
        self.digest = b""


def sealed(payload: object) -> Sealed | None:
    """The memory of which all is `payload`, if it is in any."""
    if not isinstance(payload, memoryview):
        return None
    found = getattr(payload.obj, "sealed", None)
    return found if isinstance(found, Sealed) and found.size == len(payload) else None


def mapped(descriptor: int, size: int) -> memoryview:
    """Map `size` bytes, privately and writable; new memory for the descriptor -1. Raises `OSError`.

    Unmapped when nothing refers to the view, or to any part of it.
    """
    flags = _PRIVATE | _NO_RESERVE | (_ANONYMOUS if descriptor < 0 else 0)
    address = _libc.mmap(None, size, _READ_WRITE, flags, descriptor, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), "A large payload cannot be mapped")
    array = (ctypes.c_ubyte * size).from_address(address)
    _at_end(array, _libc.munmap, address, size)
    return PickleBuffer(array).raw()


def keep(descriptor: int, size: int) -> memoryview:
    """Map sealed memory and keep its descriptor, which is closed with the payload. Closes it when this raises."""
    try:
        view = mapped(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    memory: Any = view.obj
    memory.sealed = Sealed(descriptor, size)
    _at_end(memory, os.close, descriptor)
    return view


def check_sealed(descriptor: int, size: int) -> None:
    """Raises `ValueError` unless it is sealed memory of that size."""
    try:
        seals = fcntl(descriptor, F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & SEALS != SEALS:
        raise ValueError("a payload came in memory that is not sealed")
    if size <= 0 or os.fstat(descriptor).st_size != size:
        raise ValueError("a payload has another size than was said")


class Spool:
    """Memory that is being written. Raises `OSError` when there is no more."""

    _descriptor, size = -1, 0

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("potluck", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        self.size += len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def seal(self) -> memoryview:
        """The payload, complete."""
        descriptor, self._descriptor = self._descriptor, -1
        try:
            fcntl(descriptor, F_ADD_SEALS, SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        return keep(descriptor, self.size)

    def close(self) -> None:
        """Throw away what was written, unless it is sealed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    __del__ = close


def hold(parts: Iterable[Buffer]) -> memoryview:
    """The parts, one after the other, as one payload in sealed memory. Raises `OSError`."""
    spool = Spool()
    try:
        for part in parts:
            spool.write(part)
        return spool.seal()
    finally:
        spool.close()


def _at_end(memory: object, do: Callable[..., object], *arguments: object) -> None:
    """Not at exit, when others may still read it: the kernel cleans up then."""
    weakref.finalize(memory, do, *arguments).atexit = False
