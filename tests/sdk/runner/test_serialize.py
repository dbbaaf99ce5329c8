from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from potluck import serialize
from potluck.errors import SerializationError


class Holder:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class Slotted:
    __slots__ = ("handle",)

    def __init__(self, handle: Any) -> None:
        self.handle = handle


def closure() -> Any:
    lock = threading.Lock()
    return lambda: lock


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


CASES: list[tuple[Any, str]] = [
    ({"model": Holder(lock=threading.Lock())}, "value['model'].lock"),
    ([1, (2, {"x": threading.Lock()})], "value[1][1]['x']"),
    (Holder(inner=Holder(stream=io.BufferedReader(io.BytesIO()))), "value.inner.stream"),  # type: ignore[arg-type]
    (Slotted(threading.Lock()), "value.handle"),
    (closure(), "value (its closure variable lock)"),
    (threading.Lock(), "value"),
]


@pytest.mark.parametrize(("value", "path"), CASES, ids=[path for _, path in CASES])
def test_the_culprit_is_named(value: Any, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        serialize.dumps(value, "value")
    assert caught.value.what.startswith(f"{path}: ")
    assert "cannot pickle" in caught.value.what


def test_functions_and_values_survive() -> None:
    number = 5
    assert serialize.loads(serialize.dumps(lambda: number + 1, "f"))() == 6
    assert serialize.loads(serialize.dumps({"a": [1, 2]}, "x")) == {"a": [1, 2]}


def test_too_deep_is_an_error_not_a_crash() -> None:
    with pytest.raises(SerializationError, match="nested too deeply"):
        serialize.dumps(deep(100_000), "value")


def test_broken_bytes_are_named() -> None:
    with pytest.raises(SerializationError, match="could not be unpickled"):
        serialize.loads(b"\x80\x05garbage")
