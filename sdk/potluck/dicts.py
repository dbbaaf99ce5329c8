"""`Dict`: a dictionary on the owner's node, shared by programs and workers. Names and meaning are Modal's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from potluck.asking import Both, EachBoth, Steps, as_plain, dump
from potluck.errors import SerializationError
from potluck.handles import Ephemeral, Handle, Manager

if TYPE_CHECKING:
    from potluck.wire.state import Counted, Page, Values, Yes

T = TypeVar("T")
_NONE: Any = object()


class Dict(Handle):
    """Keys are plain values (text, numbers, bytes, tuples of these …), values whatever can be pickled, 100 MiB at most;
    what workers on peers that are not trusted put must be data, as their results.

    What was put is on the disk of the node, and stays until it is removed. All methods have `.aio` twins; those of
    Python's dictionaries (`d[key]`, `key in d`) are there, too, and block.
    """

    _kind = "dict"

    def __init__(self, name: str = "", object_id: str = "", create: bool = False) -> None:
        super().__init__(name, object_id, create)
        self.get = Both(self._get)
        self.put = Both(self._put)
        self.pop = Both(self._pop)
        self.contains = Both(self._contains)
        self.len = Both(self._len)
        self.update = Both(self._update)
        self.clear = Both(self._clear)
        self.keys: EachBoth[[], Any] = EachBoth(lambda: self._pages(False, lambda key, _: key))
        self.values: EachBoth[[], Any] = EachBoth(lambda: self._pages(True, lambda _, value: value))
        self.items: EachBoth[[], tuple[Any, Any]] = EachBoth(lambda: self._pages(True, lambda *pair: pair))

    @classmethod
    def from_name(cls, name: str, *, environment_name: str | None = None, create_if_missing: bool = False) -> Dict:
        """The one of this name, found (or made) when it is first used. Raises `NotFoundError` then. `environment_name`
        is passed over: there is one environment, the local node."""
        return cls._by_name(name, create_if_missing)

    @classmethod
    def from_id(cls, dict_id: str) -> Dict:
        """The one with this `object_id`."""
        return cls(object_id=dict_id)

    @classmethod
    def ephemeral(cls, *, environment_name: str | None = None) -> Ephemeral[Dict]:
        """`with Dict.ephemeral() as d:` makes one without a name, which ends with the block."""
        return Ephemeral(cls)

    def _get(self, key: Any, default: Any = None) -> Steps[Any]:
        """The value of a key, or `default`."""
        from potluck.wire.state import Get

        found: Values = yield Get((yield from self._id()), _key(key))
        return _value(found.values[0]) if found.values else default

    def _put(self, key: Any, value: Any, *, skip_if_exists: bool = False) -> Steps[bool]:
        """Set the value of a key. False if there was one and `skip_if_exists` left it as it is."""
        from potluck.wire.state import Put

        pair = (_key(key),), (dump(value, f"the value of {key!r:.40}"),)
        done: Yes = yield Put((yield from self._id()), *pair, skip_if_exists)
        return done.yes

    def _pop(self, key: Any, default: Any = _NONE) -> Steps[Any]:
        """Take the value of a key out. Raises `KeyError` when there is none, and no `default`."""
        from potluck.wire.state import Pop

        found: Values = yield Pop((yield from self._id()), _key(key))
        if not found.values and default is _NONE:
            raise KeyError(f"{key!r} is not in the dict")
        return _value(found.values[0]) if found.values else default

    def _contains(self, key: Any) -> Steps[bool]:
        """Whether there is a value for a key."""
        from potluck.wire.state import Has

        found: Yes = yield Has((yield from self._id()), _key(key))
        return found.yes

    def _len(self) -> Steps[int]:
        """How many entries there are."""
        from potluck.wire.state import Count

        found: Counted = yield Count((yield from self._id()))
        return found.count

    def _update(self, other: Mapping[Any, Any] | None = None, /, **kwargs: Any) -> Steps[None]:
        """Set many at once, all or none: at most 10,000 entries and 100 MiB."""
        from potluck.wire.state import Put

        pairs = {**dict(other or {}), **kwargs}
        keys = tuple(_key(key) for key in pairs)
        values = tuple(dump(value, f"the value of {key!r:.40}") for key, value in pairs.items())
        yield Put((yield from self._id()), keys, values)

    def _clear(self) -> Steps[None]:
        """Remove all entries."""
        from potluck.wire.state import Clear

        yield Clear((yield from self._id()))

    def _pages(self, values: bool, make: Callable[[Any, Any], T]) -> Callable[[], Steps[list[T] | None]]:
        """Entries in no particular order; what is put or removed meanwhile may be among them or not."""
        after: bytes | None = None
        more = True

        def page() -> Steps[list[T] | None]:
            from potluck.wire.state import Entries

            nonlocal after, more
            if not more:
                return None
            found: Page = yield Entries((yield from self._id()), after, values)
            after, more = (found.keys[-1] if found.keys else None), found.more
            pairs = zip(found.keys, found.values or (None,) * len(found.keys), strict=True)
            return [make(_value(key), _value(value) if value is not None else None) for key, value in pairs]

        return page

    def __getitem__(self, key: Any) -> Any:
        found = self.get(key, _NONE)
        if found is _NONE:
            raise KeyError(f"{key!r} is not in the dict")
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def __delitem__(self, key: Any) -> None:
        self.pop(key)

    def __contains__(self, key: Any) -> bool:
        return self.contains(key)

    def __iter__(self) -> Any:
        raise TypeError("iterate over d.keys(), d.values() or d.items()")

    objects: Manager[Dict]


Dict.objects = Manager(lambda: Dict)


def _key(key: Any) -> bytes:
    """Raises `TypeError` for what is no key of a dictionary, `SerializationError` for what is not always written in the
    same way."""
    hash(key)
    if _holds_set(key):
        raise SerializationError("A set cannot be a key: its order is not always the same.", fix="Use a sorted tuple.")
    return as_plain(key, "the key")


def _holds_set(key: Any) -> bool:
    return isinstance(key, frozenset) or (isinstance(key, tuple) and any(map(_holds_set, key)))


def _value(data: bytes) -> Any:
    from potluck.serialize import loads

    return loads(data)
