"""The runner's own codec against msgspec, and its constants against the messages'."""

from __future__ import annotations

import os
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck import frames, wire
from potluck.runner import codec
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
    assert codec.FRAME_BYTES_MAX == frames.FRAME_BYTES_MAX


def test_messages_cross_a_pipe_whole() -> None:
    reading, writing = os.pipe()
    payload = os.urandom(1 << 20)
    writer = threading.Thread(target=codec.write_message, args=(writing, ["RunInput", 1, payload]))
    writer.start()
    assert codec.read_message(reading) == ["RunInput", 1, payload]
    writer.join()
    os.close(writing)
    assert codec.read_message(reading) is None
    os.close(reading)


def test_oversize_frames_are_refused_before_their_bytes() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="over the limit"):
        codec.read_message(reading)
    os.close(reading)
    os.close(writing)
