"""The runner's own codec against msgspec, and its constants against the messages'."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck import frames, wire
from potluck.runner import codec, failures, memory
from potluck.wire import worker
from potluck.wire.common import FunctionSpec

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=70) | st.binary(max_size=300)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=20), max_leaves=40)

OUTGOING: list[tuple[Any, Any]] = [
    (["ZygoteReady", 1, "3.11.7", 5], worker.ZygoteReady(1, "3.11.7", 5)),
    (["ZygoteFailed", ["Failure", "k", "w", "", "f"], None], worker.ZygoteFailed(wire.Failure("k", "w", "", "f"))),
    (["WorkerSpawned", "w", 7], worker.WorkerSpawned("w", 7)),
    (["WorkerExited", "w", -9], worker.WorkerExited("w", -9)),
    (["WorkerReady"], worker.WorkerReady()),
    (["WorkerLog", 3, 2, b"x"], worker.WorkerLog(3, 2, b"x")),
    (["InputYielded", 3, 0, b"p"], worker.InputYielded(3, 0, b"p")),
    (["InputSucceeded", 3, b"p", 9], worker.InputSucceeded(3, b"p", 9)),
    (
        ["InputRaised", 3, ["RemoteException", "t", "m", "tb", b""], 9],
        worker.InputRaised(3, wire.RemoteException("t", "m", "tb"), 9),
    ),
    (
        ["InputRefused", 3, ["Failure", "k", "w", "y", "f"], 9],
        worker.InputRefused(3, wire.Failure("k", "w", "y", "f"), 9),
    ),
]


@given(values)
def test_packed_values_are_msgpack(value: Any) -> None:
    assert msgspec.msgpack.decode(codec.pack(value)) == value


@given(values)
def test_msgpack_values_unpack(value: Any) -> None:
    assert codec.unpack(msgspec.msgpack.encode(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_unpack_or_are_refused(data: bytes) -> None:
    try:
        codec.unpack(data)
    except (ValueError, RecursionError):
        return


@pytest.mark.parametrize(("packed", "message"), OUTGOING)
def test_messages_are_those_of_the_wire(packed: Any, message: Any) -> None:
    kind = worker.FromZygote | worker.FromWorker
    assert wire.decode(codec.pack(packed), kind) == message  # type: ignore[arg-type]


def test_incoming_function_fields() -> None:
    spec = FunctionSpec("a", "n", "i", "3.11", module="m", qualname="q", env=(("K", "v"),), imports=("json",))
    tag, protocol, fields = codec.unpack(wire.encode(worker.StartZygote(1, spec)))  # type: ignore[misc]
    assert (tag, protocol) == ("StartZygote", 1)
    named = dict(zip(codec.FUNCTION_FIELDS, fields, strict=True))
    assert (named["module"], named["qualname"], named["imports"]) == ("m", "q", ["json"])


def test_constants_repeat_those_of_the_messages() -> None:
    assert FunctionSpec.__struct_fields__ == codec.FUNCTION_FIELDS
    assert codec.PROTOCOL == wire.PROTOCOL
    assert codec.PAYLOAD_BYTES_MAX == wire.PAYLOAD_BYTES_MAX
    assert codec.LOG_BYTES_MAX == worker.LOG_BYTES_MAX
    assert codec.ITEMS_AHEAD_MAX == worker.ITEMS_AHEAD_MAX
    assert codec.ITEM_BYTES_AHEAD_MAX == worker.ITEM_BYTES_AHEAD_MAX
    assert failures.TROUBLE_MAX == worker.TROUBLE_MAX
    assert codec.FRAME_BYTES_MAX == frames.FRAME_BYTES_MAX
    assert (codec.CONTENT, codec.DESCRIPTOR) == (frames.CONTENT, frames.DESCRIPTOR)
    assert frames.PAYLOAD_BYTES_MAX == wire.PAYLOAD_BYTES_MAX


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def cross(ends: tuple[socket.socket, socket.socket], message: codec.Message) -> codec.Message | None:
    writer = threading.Thread(target=codec.write_message, args=(ends[0].fileno(), message))
    writer.start()
    try:
        return codec.read_message(ends[1].fileno())
    finally:
        writer.join(5)


def test_messages_cross_a_socket_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    payload = os.urandom(1 << 20)
    assert cross(ends, ["RunInput", 1, payload]) == ["RunInput", 1, payload]
    ends[0].close()
    assert codec.read_message(ends[1].fileno()) is None


def test_what_goes_ahead_comes_back_in_its_place(ends: tuple[socket.socket, socket.socket]) -> None:
    parts = codec.Parts([os.urandom(300_000), memoryview(bytes(7)), b"end"])
    whole = b"".join(parts.buffers)
    assert cross(ends, ["InputSucceeded", 1, parts, 5]) == ["InputSucceeded", 1, whole, 5]


def send_held(channel: socket.socket, size: int, descriptor: int, message: codec.Message) -> None:
    socket.send_fds(channel, [struct.pack(">IQ", codec.DESCRIPTOR, size)], [descriptor])
    codec.write_message(channel.fileno(), message)


def test_sealed_memory_is_mapped_without_a_descriptor_left(ends: tuple[socket.socket, socket.socket]) -> None:
    held = memory.hold([os.urandom(1 << 20)])
    found = memory.sealed(held)
    assert found
    before = len(os.listdir("/proc/self/fd"))
    send_held(ends[0], len(held), found.descriptor, ["RunBatch", [1, 2], [b"small", b""]])
    _, _, payloads = codec.read_message(ends[1].fileno()) or []
    assert payloads == [b"small", held]
    payloads[1][0] ^= 1  # a private mapping: theirs is as it was
    assert payloads[1] != held
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("seal", "said"), [(False, 4096), (True, 4097), (True, 4095), (True, 3 << 30)])
def test_memory_that_is_not_as_said_is_refused(
    ends: tuple[socket.socket, socket.socket], seal: bool, said: int
) -> None:
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 4096)
    if seal:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, memory.SEALS)
    send_held(ends[0], said, descriptor, ["RunInput", 1, b""])
    with pytest.raises(ValueError, match="payload"):
        codec.read_message(ends[1].fileno())
    os.close(descriptor)


def test_a_payload_without_a_place_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    codec.write_message(ends[0].fileno(), ["RunInput", 1, b"has one"])
    ends[0].send(struct.pack(">IQ", codec.CONTENT, 3) + b"abc")
    codec.read_message(ends[1].fileno())
    codec.write_message(ends[0].fileno(), ["StopWorker"])
    with pytest.raises(ValueError, match="belongs to no message"):
        codec.read_message(ends[1].fileno())


def test_oversize_frames_are_refused_before_their_bytes(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].send(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="over the limit"):
        codec.read_message(ends[1].fileno())
