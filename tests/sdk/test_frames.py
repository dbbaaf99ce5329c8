"""What another process may send in place of sealed memory; and that none of it is read, or kept open."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from pathlib import Path

import pytest

from potluck import frames
from potluck.errors import RemoteProtocolError
from potluck.runner import memory

SIZE = 300_000


def memfd(seals: int = memory.SEALS, size: int = SIZE) -> int:
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl(descriptor, F_ADD_SEALS, seals)
    return descriptor


def pipe() -> int:
    near, far = os.pipe()
    os.close(far)
    return near


def file(folder: Path) -> int:
    path = folder / "file"
    path.write_bytes(bytes(SIZE))
    return os.open(path, os.O_RDWR)


@pytest.fixture
def descriptors_before() -> Iterator[int]:
    before = len(os.listdir("/proc/self/fd"))
    yield before
    assert len(os.listdir("/proc/self/fd")) == before


def feed(descriptor: int | None, said: int = SIZE) -> list[tuple[bytes, list[memoryview]]]:
    descriptors = deque[int]() if descriptor is None else deque([descriptor])
    reader = frames.MessageReader(descriptors=descriptors)
    try:
        return list(
            reader.feed(frames.HEADER.pack(frames.DESCRIPTOR) + frames.SIZE.pack(said) + frames.encode_frame(b"m"))
        )
    finally:
        reader.close()


def test_sealed_memory_is_taken(descriptors_before: int) -> None:
    [(body, [payload])] = feed(memfd())
    assert (body, bytes(payload)) == (b"m", bytes(SIZE))
    del payload


def test_what_was_sent_can_be_changed_by_nobody(descriptors_before: int) -> None:
    """Its sender keeps a descriptor of the same memory."""
    theirs = memfd()
    [(_, [payload])] = feed(os.dup(theirs))
    for attempt in (
        lambda: os.ftruncate(theirs, 10),
        lambda: os.ftruncate(theirs, SIZE + 1),
        lambda: os.pwrite(theirs, b"x", 0),
        lambda: fcntl(theirs, F_ADD_SEALS, 0),
    ):
        with pytest.raises(PermissionError):
            attempt()
    assert bytes(payload) == bytes(SIZE)
    os.close(theirs)
    del payload


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: memfd(0),
        lambda folder: memfd(F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SEAL),
        lambda folder: memfd(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
        lambda folder: memfd(F_SEAL_SHRINK | F_SEAL_WRITE | F_SEAL_SEAL),
        lambda folder: memfd(memory.SEALS, SIZE - 1),
        lambda folder: memfd(memory.SEALS, SIZE + 1),
        lambda folder: memfd(memory.SEALS, 0),
        lambda folder: pipe(),
        file,
        lambda folder: os.open("/dev/zero", os.O_RDWR),
        lambda folder: os.open(folder, os.O_RDONLY),
        lambda folder: os.open(folder, os.O_PATH),
    ],
    ids=[
        "unsealed", "may shrink", "may be written", "may grow", "shorter", "longer", "empty", "pipe", "file", "device",
        "folder", "path",
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_closed(
    make: Callable[[Path], int], tmp_path: Path, descriptors_before: int
) -> None:
    with pytest.raises(RemoteProtocolError, match="broke the protocol"):
        feed(make(tmp_path))


def test_a_descriptor_that_was_announced_has_to_come(descriptors_before: int) -> None:
    with pytest.raises(RemoteProtocolError, match="none came along"):
        feed(None)


@pytest.mark.parametrize("said", [0, (2 << 30) + 1, 1 << 63])
def test_no_size_is_believed(said: int, descriptors_before: int) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(memfd(), said)


def test_descriptors_of_which_nothing_was_said_are_closed(descriptors_before: int) -> None:
    reader = frames.MessageReader(descriptors=deque([memfd(), pipe()]))
    list(reader.feed(frames.encode_frame(b"m")))
    reader.close()


def test_what_is_put_back_into_an_outbox_comes_first():
    outbox = frames.Outbox()
    outbox.add(b"one")
    outbox.add(b"two")
    piece = outbox.next()
    assert outbox.bytes == 0
    outbox.put_back(frames.Piece(piece.data[3:]))
    outbox.add(b"three")
    assert outbox.next().data == piece.data[3:] + frames.encode_frame(b"three")
    assert outbox.bytes == 0
