"""What shared state promises on every database. No pytest in here: any implementation can be held against it.

Each check takes a world: `async with world() as (one, two)` gives two served `State`s of one database, two nodes where
it can be shared, and a clock that stands still until it is moved.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NamedTuple

import trio
import trio.testing

from potluck import wire
from potluck.errors import AlreadyExistsError, InvalidError, NotFoundError, RefusedError, SerializationError
from potluck.runner import plain
from potluck.wire import state as messages
from potluck.wire.state import DICT, QUEUE
from potluck_node.state.service import State
from potluck_node.state.work import Asker


class Pair(NamedTuple):
    one: State
    two: State
    clock: Any


World = Callable[[], AbstractAsyncContextManager[Pair]]

OWNER = Asker("client 1")
STRANGER = Asker("lease 1", "app", trusted=False)
FOREVER = -1
DAY_US = 24 * 3600 * 1_000_000


async def make(state: State, kind: str, name: str = "", asker: Asker = OWNER) -> str:
    holder = await state.ask(messages.Open(kind, name, create=True), asker)
    assert isinstance(holder, messages.Holder)
    return holder.id


def key(value: object) -> bytes:
    return plain.dumps(value)


async def values(state: State, request: messages.StateRequest, asker: Asker = OWNER) -> tuple[bytes, ...]:
    answer = await state.ask(request, asker)
    assert isinstance(answer, messages.Values | messages.Page)
    return answer.values


async def yes(state: State, request: messages.StateRequest, asker: Asker = OWNER) -> bool:
    answer = await state.ask(request, asker)
    assert isinstance(answer, messages.Yes)
    return answer.yes


async def count(state: State, request: messages.Count) -> int:
    answer = await state.ask(request, OWNER)
    assert isinstance(answer, messages.Counted)
    return answer.count


async def refused(kind: type[Exception], state: State, request: messages.StateRequest, asker: Asker = OWNER) -> None:
    try:
        await state.ask(request, asker)
    except kind:
        return
    raise AssertionError(f"{request} was not refused with {kind.__name__}")


# Dicts


async def check_dict(world: World) -> None:
    async with world() as (one, two, _):
        d = await make(one, DICT, "d")
        assert await make(two, DICT, "d") == d
        assert await yes(one, messages.Put(d, (key("a"), key("b")), (b"1", b"2")))
        assert await values(two, messages.Get(d, key("a"))) == (b"1",)
        assert await yes(two, messages.Put(d, (key("a"),), (b"11",)))
        assert not await yes(one, messages.Put(d, (key("a"),), (b"0",), new=True))
        assert await yes(one, messages.Put(d, (key("c"),), (b"",), new=True))
        assert await values(one, messages.Get(d, key("a"))) == (b"11",)
        assert await values(one, messages.Get(d, key("c"))) == (b"",)
        assert await count(two, messages.Count(d)) == 3
        assert await values(two, messages.Pop(d, key("b"))) == (b"2",)
        assert await values(two, messages.Pop(d, key("b"))) == ()
        assert not await yes(one, messages.Has(d, key("b")))
        assert await yes(one, messages.Has(d, key("a")))
        assert await yes(one, messages.Clear(d))
        assert await count(one, messages.Count(d)) == 0


async def check_dict_pages(world: World) -> None:
    async with world() as (one, _, _clock):
        d = await make(one, DICT)
        keys = tuple(key(number) for number in range(messages.PAGE_ITEMS * 2 + 1))
        await one.ask(messages.Put(d, keys, tuple(b"%d" % number for number in range(len(keys)))), OWNER)
        found: dict[bytes, bytes] = {}
        after, more, pages = None, True, 0
        while more:
            page = await one.ask(messages.Entries(d, after), OWNER)
            assert isinstance(page, messages.Page)
            assert not found.keys() & set(page.keys)
            found |= dict(zip(page.keys, page.values, strict=True))
            after, more, pages = page.keys[-1], page.more, pages + 1
        assert pages == 3
        assert found == {each: b"%d" % number for number, each in enumerate(keys)}
        alone = await one.ask(messages.Entries(d, values=False), OWNER)
        assert isinstance(alone, messages.Page)
        assert not alone.values
        assert len(alone.keys) == messages.PAGE_ITEMS


async def check_dict_limits(world: World) -> None:
    async with world() as (one, _, _clock):
        d = await make(one, DICT)
        await refused(InvalidError, one, messages.Put(d, (key("k" * messages.KEY_BYTES_MAX),), (b"",)))
        await refused(InvalidError, one, messages.Put(d, (b"a pickle",), (b"",)))
        many = messages.UPDATE_MAX + 1
        await refused(InvalidError, one, messages.Put(d, tuple(map(key, range(many))), (b"",) * many))
        assert await count(one, messages.Count(d)) == 0


# Queues


async def check_queue(world: World) -> None:
    async with world() as (one, two, _):
        q = await make(one, QUEUE, "q")
        for number in range(3):
            assert await yes((one, two)[number % 2], messages.Enqueue(q, (b"%d" % number,)))
        assert await yes(one, messages.Enqueue(q, (b"x", b"y"), "other"))
        assert await values(two, messages.Peek(q)) == (b"0", b"1", b"2")
        assert await values(two, messages.Dequeue(q)) == (b"0",)
        assert await count(one, messages.Count(q)) == 2
        assert await count(one, messages.Count(q, total=True)) == 4
        assert await values(one, messages.Dequeue(q, most=9)) == (b"1", b"2")
        assert await values(one, messages.Dequeue(q)) == ()
        assert await yes(two, messages.Clear(q, "other"))
        assert await count(two, messages.Count(q, total=True)) == 0


async def check_waiting_for_an_item(world: World) -> None:
    """Also when another node puts it; each item goes to one, who waited longest on that node."""
    async with world() as (one, two, _), trio.open_nursery() as nursery:
        q = await make(one, QUEUE, "q")
        got: list[tuple[int, bytes]] = []

        async def take(number: int) -> None:
            (value,) = await values(one, messages.Dequeue(q, wait_us=FOREVER))
            got.append((number, value))

        for number in range(3):
            nursery.start_soon(take, number)
            await _until_waiting(one, number + 1)
        assert await yes(two, messages.Enqueue(q, (b"first",)))
        await _until(lambda: len(got) == 1)
        assert await yes(one, messages.Enqueue(q, (b"second", b"third")))
        await _until(lambda: len(got) == 3)
        assert {value for _, value in got} == {b"first", b"second", b"third"}
        assert got[0] == (0, b"first")
        assert await count(one, messages.Count(q)) == 0


async def check_waiting_ends(world: World) -> None:
    async with world() as (one, two, _):
        q = await make(one, QUEUE, "q")
        assert await values(one, messages.Dequeue(q, wait_us=1000)) == ()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(values, one, messages.Dequeue(q, wait_us=FOREVER))
            await _until_waiting(one, 1)
            nursery.cancel_scope.cancel()
        assert await yes(two, messages.Enqueue(q, (b"kept",)))
        assert await values(one, messages.Dequeue(q, wait_us=FOREVER)) == (b"kept",)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, NotFoundError, one, messages.Dequeue(q, wait_us=FOREVER))
            await _until_waiting(one, 1)
            assert await yes(two, messages.Delete(QUEUE, name="q"))


async def check_waiting_for_room(world: World) -> None:
    async with world() as (one, two, _):
        q = await make(one, QUEUE, "q")
        assert await yes(one, messages.Enqueue(q, (b"",) * messages.ITEMS_MAX))
        assert not await yes(one, messages.Enqueue(q, (b"late",), wait_us=1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(yes, one, messages.Enqueue(q, (b"late",), wait_us=FOREVER))
            await _until_waiting(one, 1)
            await values(two, messages.Dequeue(q))
        assert await count(one, messages.Count(q)) == messages.ITEMS_MAX
        await refused(InvalidError, one, messages.Enqueue(q, (b"",) * (messages.ITEMS_MAX + 1)))
        await refused(InvalidError, one, messages.Enqueue(q, (bytes(messages.ITEM_BYTES_MAX + 1),)))
        await refused(InvalidError, one, messages.Enqueue(q, (b"",), "p" * 65))
        await refused(InvalidError, one, messages.Enqueue(q, (b"",), ttl_s=0))


async def check_looking_leaves_items_to_those_who_take(world: World) -> None:
    async with world() as (one, two, _), trio.open_nursery() as nursery:
        q = await make(one, QUEUE, "q")
        seen: list[tuple[bytes, ...]] = []

        async def look(request: messages.StateRequest) -> None:
            seen.append(await values(one, request))

        for request in (messages.Peek(q, wait_us=FOREVER), messages.Dequeue(q, wait_us=FOREVER)):
            nursery.start_soon(look, request)
        await _until_waiting(one, 2)
        assert await yes(two, messages.Enqueue(q, (b"one",)))
        await _until(lambda: (b"one",) in seen)
        # Whoever looked may have come too late.
        await two.ask(messages.Enqueue(q, (b"two",)), OWNER)
        await _until(lambda: len(seen) == 2)


async def check_partitions_expire(world: World) -> None:
    async with world() as (one, two, clock):
        q = await make(one, QUEUE, "q")
        await one.ask(messages.Enqueue(q, (b"short",), "p", ttl_s=10), OWNER)
        await one.ask(messages.Enqueue(q, (b"long",), "r"), OWNER)
        clock.advance(10_000_000)
        assert await values(two, messages.Dequeue(q, "p")) == ()
        assert await count(one, messages.Count(q, total=True)) == 1
        clock.advance(DAY_US)
        assert await count(one, messages.Count(q, total=True)) == 0
        await one.ask(messages.Enqueue(q, (b"again",), "p"), OWNER)
        assert await values(two, messages.Dequeue(q, "p")) == (b"again",)


async def check_an_item_nobody_waited_for_is_put_back(world: World) -> None:
    """Whoever takes it out may be gone by the time it is on disk: the next one gets it, in its old place."""
    async with world() as (one, _, _clock):
        q = await make(one, QUEUE, "q")
        await one.ask(messages.Enqueue(q, (b"1", b"2")), OWNER)
        for checkpoints in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(values, one, messages.Dequeue(q, wait_us=FOREVER))
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            left = await values(one, messages.Peek(q, wait_us=FOREVER))
            await trio.testing.wait_all_tasks_blocked()
            if len(left) < 2 and await count(one, messages.Count(q)) < 2:
                # It was there in time: then it is gone, as it should be.
                await one.ask(messages.Clear(q, all=True), OWNER)
                await one.ask(messages.Enqueue(q, (b"1", b"2")), OWNER)
            assert await values(one, messages.Peek(q, wait_us=FOREVER)) == (b"1", b"2")


async def check_nonsense_ends_nothing(world: World) -> None:
    """What a database cannot take is refused, and what came with it is done."""
    async with world() as (one, _, _clock), trio.open_nursery() as nursery:
        d, q = await make(one, DICT), await make(one, QUEUE)
        for request in (messages.Peek(q, after=(1 << 64) - 1), messages.Dequeue(q, most=-1), messages.Get(d, b"x")):
            nursery.start_soon(_asked, one, request)
            nursery.start_soon(one.ask, messages.Put(d, (key(request.id),), (b"",)), OWNER)
    async with world() as (one, _, _clock):
        assert await one.ask(messages.ListHolders(DICT, (1 << 63) - 1), OWNER) == messages.Holders(())


async def _asked(state: State, request: messages.StateRequest) -> None:
    with suppress(InvalidError):
        await state.ask(request, OWNER)


async def check_a_desk_answers_all_and_each_once(world: World) -> None:
    async with world() as (one, _, _clock):
        q = await make(one, QUEUE)
        told: list[tuple[int, bytes, object]] = []
        desk = one.desk(OWNER, lambda *answer: told.append(answer))
        # More than have a turn at a time: whoever waits for an item must not keep others from putting one.
        for number in range(50):
            desk.ask(number, wire.encode(messages.Dequeue(q, wait_us=FOREVER)))
        desk.ask(7, b"a number that is taken")
        desk.ask(100, b"nonsense")
        desk.ask(101, wire.encode(messages.Enqueue(q, (b"item",) * 49)))
        await _until(lambda: len(told) == 52)
        (left,) = {*range(50)} - {number for number, _, failure in told if failure is None}
        desk.leave(left)
        await _until(lambda: len(told) == 53)
        assert sum(failure is not None for _, _, failure in told) == 3
        assert sorted(number for number, *_ in told) == sorted([*range(50), 7, 100, 101])
        desk.close()


# Names and rights


async def check_names(world: World) -> None:
    async with world() as (one, two, clock):
        await refused(NotFoundError, one, messages.Open(DICT, "none"))
        await refused(InvalidError, one, messages.Open(DICT, "no name", create=True))
        d = await make(one, DICT, "both")
        clock.advance(1)
        q = await make(one, QUEUE, "both")
        assert d != q
        await refused(AlreadyExistsError, two, messages.Open(DICT, "both", create=True, new=True))
        await refused(NotFoundError, two, messages.Get(q, key("a")))
        assert isinstance(await two.ask(messages.Find(DICT, d), OWNER), messages.Holder)
        listed = await two.ask(messages.ListHolders(DICT), OWNER)
        assert isinstance(listed, messages.Holders)
        assert [each.name for each in listed.holders] == ["both"]
        assert await yes(two, messages.Delete(DICT, name="both"))
        assert not await yes(one, messages.Delete(DICT, name="both"))
        await refused(NotFoundError, one, messages.Get(d, key("a")))


async def check_unnamed_ones_end_with_their_maker(world: World) -> None:
    async with world() as (one, _, _clock):
        d = await make(one, DICT)
        other = await make(one, DICT, asker=Asker("client 2"))
        one.left(OWNER.name)
        await refused(NotFoundError, one, messages.Find(DICT, d))
        assert isinstance(await one.ask(messages.Find(DICT, other), OWNER), messages.Holder)


async def check_rights_of_strangers(world: World) -> None:
    """Ids are enough; names must have been given, or be the app's own; and values are data."""
    async with world() as (one, two, _):
        d = await make(one, DICT, "private")
        await refused(RefusedError, one, messages.Open(DICT, "private"), STRANGER)
        await refused(RefusedError, one, messages.Open(DICT, "private", create=True), STRANGER)
        await refused(RefusedError, one, messages.Delete(DICT, name="private"), STRANGER)
        await refused(RefusedError, one, messages.ListHolders(DICT), STRANGER)
        await refused(RefusedError, one, messages.Grant(DICT, "private", "app"), STRANGER)
        assert await yes(one, messages.Put(d, (key("a"),), (key(1),)), STRANGER)
        await refused(SerializationError, one, messages.Put(d, (key("a"),), (b"\x80\x05pickle",)), STRANGER)
        q = await make(two, QUEUE, "own", STRANGER)
        assert await make(one, QUEUE, "own", STRANGER) == q
        await refused(SerializationError, one, messages.Enqueue(q, (b"\x80\x05pickle",)), STRANGER)
        await refused(RefusedError, one, messages.Open(QUEUE, "own"), Asker("lease 2", "other", trusted=False))
        for number in range(messages.APP_NAMES_MAX - 1):
            await make(one, DICT, f"own{number}", STRANGER)
        await refused(RefusedError, one, messages.Open(DICT, "one-more", create=True), STRANGER)
        await one.ask(messages.Grant(DICT, "private", "app"), OWNER)
        assert await make(two, DICT, "private", STRANGER) == d


CHECKS = (
    check_dict,
    check_dict_pages,
    check_dict_limits,
    check_queue,
    check_waiting_for_an_item,
    check_waiting_ends,
    check_waiting_for_room,
    check_looking_leaves_items_to_those_who_take,
    check_partitions_expire,
    check_an_item_nobody_waited_for_is_put_back,
    check_nonsense_ends_nothing,
    check_a_desk_answers_all_and_each_once,
    check_names,
    check_unnamed_ones_end_with_their_maker,
    check_rights_of_strangers,
)


async def _until(condition: Callable[[], bool]) -> None:
    """Other threads, and another node, have a part in it; the limit only ends a broken test."""
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.001)


async def _until_waiting(state: State, number: int) -> None:
    await _until(lambda: state.waiting == number)
