"""`Queue`: a first-in-first-out queue on the owner's node, with partitions. Names and meaning are Modal's."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from potluck.asking import Both, EachBoth, Steps, dump
from potluck.errors import InvalidError
from potluck.handles import Ephemeral, Handle, Manager

if TYPE_CHECKING:
    from potluck.wire.state import Counted, Page, Values, Yes

# As Modal's: what is put waits for a day to be taken.
TTL_S = 24 * 3600


class Queue(Handle):
    """Each partition is a queue of its own, of at most 5,000 items and 64 MiB; an item has at most 1 MiB pickled.

    An item is given to one taker, and is lost if that one dies with it. All methods have `.aio` twins.
    """

    _kind = "queue"

    def __init__(self, name: str = "", object_id: str = "", create: bool = False) -> None:
        super().__init__(name, object_id, create)
        self.get = Both(self._get)
        self.get_many = Both(self._get_many)
        self.put = Both(self._put)
        self.put_many = Both(self._put_many)
        self.len = Both(self._len)
        self.clear = Both(self._clear)
        self.iterate = EachBoth(self._pages)

    @classmethod
    def from_name(cls, name: str, *, environment_name: str | None = None, create_if_missing: bool = False) -> Queue:
        """The one of this name, found (or made) when it is first used. Raises `NotFoundError` then. `environment_name`
        is passed over: there is one environment, the local node."""
        return cls._by_name(name, create_if_missing)

    @classmethod
    def from_id(cls, queue_id: str) -> Queue:
        """The one with this `object_id`."""
        return cls(object_id=queue_id)

    @classmethod
    def ephemeral(cls, *, environment_name: str | None = None) -> Ephemeral[Queue]:
        """`with Queue.ephemeral() as q:` makes one without a name, which ends with the block."""
        return Ephemeral(cls)

    @staticmethod
    def validate_partition_key(partition: str | None) -> bytes:
        """The partition's name as it is kept. Raises `InvalidError` unless it has from 1 to 64 bytes."""
        if partition is None:
            return b""
        name = partition.encode()
        if not 0 < len(name) <= 64:
            raise InvalidError(f"{partition!r:.80} is no name of a partition.", fix="Use from 1 to 64 bytes.")
        return name

    def _get(
        self, block: bool = True, timeout: float | None = None, *, partition: str | None = None
    ) -> Steps[Any | None]:
        """Take the next item out. When there is none: with `block` wait, at most `timeout` seconds, then raise
        `queue.Empty`; without, return None."""
        found = yield from self._get_many(1, block, timeout, partition=partition)
        return found[0] if found else None

    def _get_many(
        self, n_values: int, block: bool = True, timeout: float | None = None, *, partition: str | None = None
    ) -> Steps[list[Any]]:
        """Take the next items out, as many as there are but at most `n_values` (and 16 MiB). When there is none, as
        `get`; without `block` the list is empty."""
        from potluck.wire.state import Dequeue

        name, wait_us = _name(partition), _wait_us(block, timeout)
        found: Values = yield Dequeue((yield from self._id()), name, n_values, wait_us)
        if not found.values and block:
            raise queue.Empty
        return [_value(value) for value in found.values]

    def _put(
        self,
        v: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: int = TTL_S,
    ) -> Steps[None]:
        """Append an item. When the partition is full: with `block` wait, at most `timeout` seconds, then raise
        `queue.Full`; without, raise it at once. The partition is emptied `partition_ttl` seconds after the last put."""
        yield from self._put_many([v], block, timeout, partition=partition, partition_ttl=partition_ttl)

    def _put_many(
        self,
        vs: Sequence[Any],
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: int = TTL_S,
    ) -> Steps[None]:
        """Append items, all or none; else as `put`."""
        from potluck.wire.state import Enqueue

        name, wait_us = _name(partition), _wait_us(block, timeout)
        values = tuple(dump(value, "the item") for value in vs)
        done: Yes = yield Enqueue((yield from self._id()), values, name, partition_ttl, wait_us)
        if not done.yes:
            raise queue.Full

    def _len(self, *, partition: str | None = None, total: bool = False) -> Steps[int]:
        """Items in a partition, or with `total` in all of them."""
        from potluck.wire.state import Count

        found: Counted = yield Count((yield from self._id()), _one(partition, total, "total"), total)
        return found.count

    def _clear(self, *, partition: str | None = None, all: bool = False) -> Steps[None]:
        """Remove the items of a partition, or of `all`."""
        from potluck.wire.state import Clear

        yield Clear((yield from self._id()), _one(partition, all, "all"), all)

    def _pages(
        self, *, partition: str | None = None, item_poll_timeout: float = 0.0
    ) -> Callable[[], Steps[list[Any] | None]]:
        """Look at the items, which stay; ends when none has come for `item_poll_timeout` seconds."""
        name, wait_us, last = _name(partition), _wait_us(True, item_poll_timeout), 0

        def page() -> Steps[list[Any] | None]:
            from potluck.wire.state import Peek

            nonlocal last
            found: Page = yield Peek((yield from self._id()), name, last, wait_us)
            last = found.last
            return [_value(value) for value in found.values] or None

        return page

    objects: Manager[Queue]


Queue.objects = Manager(lambda: Queue)


def _name(partition: str | None) -> str:
    return Queue.validate_partition_key(partition).decode()


def _one(partition: str | None, whole: bool, option: str) -> str:
    if partition is not None and whole:
        raise InvalidError(f"{option}=True is about all partitions.", fix="Leave out one of the two.")
    return _name(partition)


def _wait_us(block: bool, timeout: float | None) -> int:
    if timeout is not None and timeout < 0:
        raise InvalidError(f"timeout={timeout} is no time to wait.", fix="Give seconds, or None.")
    if not block:
        return 0
    return -1 if timeout is None else round(timeout * 1e6)


def _value(data: bytes) -> Any:
    from potluck.serialize import loads

    return loads(data)
