"""How what is signed becomes bytes: a msgpack array of the fields in order, integers in their shortest form; peers as
32 bytes of key, digests as bytes. One value has one encoding, and nothing else is read."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, TypeVar, cast, get_type_hints

import msgspec

from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.keys import KEY_BYTES, PublicKey

# No number is larger: microseconds for 290,000 years. Verifiers in other languages have no larger integers.
NUMBER_MAX = 2**63 - 1


class Body(msgspec.Struct, frozen=True):
    """Something that is signed. `PEERS` are fields with peer ids, `DIGESTS` those with hex digits (field → bytes)."""

    KIND: ClassVar[str]
    BYTES_MAX: ClassVar[int] = 512
    PEERS: ClassVar[tuple[str, ...]] = ()
    DIGESTS: ClassVar[dict[str, int]] = {}

    def check(self) -> None:
        """Raises `EnvelopeError` for values that cannot be."""


BodyT = TypeVar("BodyT", bound=Body)


def encode(body: Body) -> bytes:
    """Raises `EnvelopeError` for what could not be read again."""
    kind = type(body)
    try:
        values = [_packed(kind, name, getattr(body, name)) for name in kind.__struct_fields__]
    except ValueError as error:
        raise EnvelopeError(f"not a {kind.__name__.lower()}: {error}") from None
    return msgspec.msgpack.encode(values)


def decode(data: bytes, kind: type[BodyT]) -> BodyT:
    """Raises `EnvelopeError`."""
    name = kind.__name__.lower()
    if len(data) > kind.BYTES_MAX:
        raise EnvelopeError(f"a {name} has at most {kind.BYTES_MAX} bytes")
    try:
        packed = msgspec.msgpack.decode(data, type=_twin(kind))
        values = {field: _unpacked(kind, field, getattr(packed, field)) for field in kind.__struct_fields__}
        body = kind(**values)
        canonical = encode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise EnvelopeError(f"not a {name}: {error}") from None
    if canonical != data:
        raise EnvelopeError(f"the {name} is not in canonical form")
    _check_numbers(body)
    body.check()
    return body


def packed(data: bytes, kind: type[Body]) -> Any:
    """The fields as they travel, and nothing checked: for what was verified before. Raises `msgspec.DecodeError`."""
    return msgspec.msgpack.decode(data, type=_twin(kind))


def _check_numbers(body: Body) -> None:
    numbers = [value for name in body.__struct_fields__ if isinstance(value := getattr(body, name), int)]
    if numbers and not 0 <= min(numbers) <= max(numbers) <= NUMBER_MAX:
        raise EnvelopeError(f"a {type(body).__name__.lower()} has figures that cannot be")


@cache
def _twin(kind: type[Body]) -> type[Any]:
    """The same fields as they travel."""
    hints = get_type_hints(kind)
    fields = [
        (name, bytes if name in kind.PEERS or name in kind.DIGESTS else hints[name]) for name in kind.__struct_fields__
    ]
    made = msgspec.defstruct(f"Packed{kind.__name__}", fields, array_like=True, forbid_unknown_fields=True)
    return cast("type[Any]", made)


def _packed(kind: type[Body], name: str, value: Any) -> Any:
    """Raises `ValueError`."""
    if name in kind.PEERS:
        return PublicKey.of_peer(value).raw
    if name in kind.DIGESTS:
        return _sized(bytes.fromhex(value), kind.DIGESTS[name], name)
    return value


def _unpacked(kind: type[Body], name: str, value: Any) -> Any:
    """Raises `ValueError`."""
    if name in kind.PEERS:
        return PublicKey(_sized(value, KEY_BYTES, name)).peer
    if name in kind.DIGESTS:
        return _sized(value, kind.DIGESTS[name], name).hex()
    return value


def _sized(data: bytes, size: int, name: str) -> bytes:
    if len(data) != size:
        raise ValueError(f"{name} has {len(data)} bytes instead of {size}")
    return data
