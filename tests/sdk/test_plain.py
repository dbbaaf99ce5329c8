"""Values as data: what survives the trip, and that no bytes make the reader run anything."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import os
import pathlib
import pickle
import sys
import uuid
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck import plain, serialize
from potluck.errors import SerializationError
from potluck.runner import plain as writer
from potluck.runner.failures import Refusal


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None

    def __post_init__(self) -> None:
        if self.x == 666:
            raise RuntimeError("an initialiser was run")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str


class Pair(NamedTuple):
    left: int
    right: str


class Colour(enum.Enum):
    RED = "red"


class OwnError(ValueError):
    def __init__(self, code: int, more: str) -> None:
        raise RuntimeError("an initialiser was run")


UTC = datetime.UTC
VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 2**64, -(2**100), 1.5, math.inf, "", "é\U0001f600", b"", b"\x00", [],
    [1, [2]], (), (1, (2,)),
    {}, {"a": 1}, {1: "a", (2, 3): [4]}, set(), {1, 2}, frozenset({"a"}), 1 + 2j, bytearray(b"x"), range(1, 9, 2),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime.datetime(2026, 1, 2), datetime.date(2026, 1, 2),
    datetime.time(1, 2, 3), datetime.timedelta(-1, 2, 3), decimal.Decimal("1.10"), fractions.Fraction(1, 3),
    uuid.UUID(int=7), pathlib.Path("/a/b"), Point(1, [Point(2)]), Frozen("n"), Pair(1, "a"), Colour.RED,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_survive_with_their_types(value: Any) -> None:
    read = serialize.loads(writer.dumps(value))
    assert read == value
    assert type(read) is type(value)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner) | st.frozensets(keys),
    max_leaves=30,
)


@given(values)
def test_any_mixture_survives(value: Any) -> None:
    assert serialize.loads(writer.dumps(value)) == value


def test_arrays_survive() -> None:
    numpy = pytest.importorskip("numpy")
    for array in (numpy.arange(6, dtype="<f4").reshape(2, 3), numpy.zeros((0, 3)), numpy.array("text"), numpy.eye(3).T):
        read = plain.loads(writer.dumps(array))
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert (read == array).all()
        read.flat[:1] = read.flat[:1]
    assert plain.loads(writer.dumps(numpy.float32(1.5))) == numpy.float32(1.5)
    with pytest.raises(Refusal, match="cannot be sent as data"):
        writer.dumps(numpy.array([object()]))


def test_what_is_no_data_is_refused_by_name() -> None:
    for value, path in (
        (object(), "result"), ([1, {"key": lambda: 0}], "result[1]['key']"), ({1: object()}, "result[0][1]"),
        (type("Sub", (list,), {})(), "result"), (OSError("x"), "result"),
    ):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            writer.dumps(value)
        assert str(caught.value).startswith(f"{path} cannot be sent as data"), caught.value
        assert "trust" in str(caught.value.message)


def test_what_is_nested_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(writer.DEPTH_MAX):
        deep = [deep]
    with pytest.raises(Refusal, match="too deep"):
        writer.dumps(deep)
    deep.append(deep)
    with pytest.raises(Refusal, match="too deep"):
        writer.dumps(deep)


def hostile(code: int, content: Any) -> bytes:
    return plain.MAGIC + msgspec.msgpack.encode(msgspec.msgpack.Ext(code, msgspec.msgpack.encode(content)))


KIND = writer.Kind


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (hostile(99, 1), "extension 99 is unknown"),
        (hostile(KIND.DATACLASS, [["os", "system"], {}]), "which this program does not have"),
        (hostile(KIND.DATACLASS, [["subprocess", "Popen"], {"args": "id"}]), "which this program does not have"),
        (hostile(KIND.DATACLASS, [["potluck.errors", "Error"], {}]), "which this program does not have"),
        (hostile(KIND.DATACLASS, [[__name__, "OwnError"], {}]), "no dataclass"),
        (hostile(KIND.DATACLASS, [[__name__, "Point"], {"x": 1, "__class__": 2}]), "no dataclass with these fields"),
        (hostile(KIND.DATACLASS, [[__name__, "Point.__init__"], {}]), "which this program does not have"),
        (hostile(KIND.DATACLASS, [["not_there", "Point"], {}]), "which this program does not have"),
        (hostile(KIND.ENUM, [[__name__, "Colour"], "BLUE"]), "BLUE"),
        (hostile(KIND.ENUM, [[__name__, "Point"], "x"]), "no enumeration"),
        (hostile(KIND.NAMEDTUPLE, [[__name__, "Pair"], [1]]), "no named tuple of 1"),
        (hostile(KIND.NAMEDTUPLE, [[__name__, "Point"], []]), "no named tuple"),
        (hostile(KIND.ARRAY, ["O", [1], b"12345678"]), ""),
        (hostile(KIND.ARRAY, ["<f8", [1 << 40], b"12345678"]), ""),
        (hostile(KIND.ARRAY, ["<f8", [1 << 40], b""]), ""),
        (hostile(KIND.TENSOR, ["float32", [1 << 40], b""]), ""),
        (hostile(KIND.TENSOR, ["load", [1], b"1234"]), ""),
        (hostile(KIND.UUID, 1), ""),
        (plain.MAGIC + b"\xdd\xff\xff\xff\xff", ""),
        (plain.MAGIC + b"\x91" * 100_000 + b"\xc0", ""),
        (plain.MAGIC, ""),
    ],
)
def test_hostile_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(SerializationError) as caught:
        serialize.loads(data)
    assert why in str(caught.value)


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    with contextlib.suppress(SerializationError):
        serialize.loads(plain.MAGIC + noise)


def test_no_initialiser_is_run_for_what_was_sent() -> None:
    read = serialize.loads(hostile(KIND.DATACLASS, [[__name__, "Point"], {"x": 666}]))
    assert read.x == 666


def test_exceptions_of_python_and_of_the_program_are_rebuilt_without_calling_them() -> None:
    found = plain.exception("ValueError", writer.dumps((("bad", 7), {})))
    assert (type(found), found and found.args) == (ValueError, ("bad", 7))
    own = plain.exception(f"{__name__}.OwnError", writer.dumps(((1, "x"), {"code": 5})))
    assert isinstance(own, OwnError)
    assert (own.args, vars(own)) == ((1, "x"), {"code": 5})
    error = plain.exception("FileNotFoundError", writer.dumps(((2, "no such file"), {})))
    assert isinstance(error, FileNotFoundError)


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "print", "os.system", "subprocess.Popen", "x.Y", ""]
)
def test_no_other_name_becomes_an_exception(name: str) -> None:
    assert plain.exception(name, b"") is None


def test_a_pickle_is_never_taken_for_data() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert not plain.is_plain(pickle.dumps(os.getcwd, protocol))
    assert "os" in sys.modules
