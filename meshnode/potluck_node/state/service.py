"""Shared state as others see it: answers requests, and lets who waits for an item, or for room, go on in turn.

Nobody polls: a waiter asks again when there is news of its partition, from this node's own transactions or, with
PostgreSQL, from another node's.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from potluck import wire
from potluck.errors import Error, InputCancellation, InvalidError, RefusedError
from potluck.wire import Failure
from potluck.wire import state as messages
from potluck.wire.errands import ErrandRequest
from potluck.wire.membership import MeshAnswer, MeshRequest
from potluck.wire.tunnels import TunnelRequest
from potluck.wire.volumes import VOLUME, StageData, VolumeRequest
from potluck_node.clock import Clock
from potluck_node.core.waiting import Waiting
from potluck_node.errands import Errands
from potluck_node.state.batches import Batches
from potluck_node.state.database import open_database
from potluck_node.state.news import News
from potluck_node.state.store import StateStore, doing, expiring, putting_back
from potluck_node.state.work import APPS_CHANGED, GONE, ITEMS, LOOK, ROOM, Asker, Outcome, Spot, Work
from potluck_node.tunnels import Tunnels

if TYPE_CHECKING:
    from trio_typing import TaskStatus

T = TypeVar("T")

_WAITS_FOR = {messages.Enqueue: ROOM, messages.Dequeue: ITEMS, messages.Peek: LOOK}

# Partitions that are past their time take room until they are used or this has passed, seconds.
EXPIRE_S = 600.0


class Volumes(Protocol):
    """Answers what is asked about volumes (`volumes.service`)."""

    async def ask(self, request: VolumeRequest, asker: Asker) -> messages.StateAnswer: ...

    def left(self, asker: str) -> None: ...

    def deleted(self) -> None: ...


class State:
    """`place` as for `open_database`; `node` is the peer id; `limit` bounds what is held, in bytes; `tunnels` is
    the address to listen on for them.

    Raises `InvalidError` when the database cannot be used.
    """

    def __init__(self, place: Path | str, node: str, clock: Clock, limit: int, tunnels: str = "none") -> None:
        self._store = StateStore(open_database(place), node, limit)
        self._batches = Batches(self._store, clock, self._tell)
        self._news = (
            News(str(place), lambda spot: self._tell({spot: 1}), self._tell_all) if self._store.shared else None
        )
        # What is passed on instead of stored.
        self.errands, self.tunnels = Errands(clock), Tunnels(tunnels)
        self._waiting = Waiting[Spot]()
        self._waiters: dict[int, trio.Event] = {}
        self._numbers = itertools.count(1)
        # Unnamed dicts and queues, which end with whoever made them.
        self._made: defaultdict[str, dict[str, messages.Delete]] = defaultdict(dict)
        self._nursery: trio.Nursery | None = None
        self._asleep = 0
        # Told when deployed apps or their schedules may have changed, here or on another node.
        self.on_apps: list[Callable[[], None]] = []
        self.volumes: Volumes | None = None
        # Answers what the owner asks about the members of the mesh.
        self.members: Callable[[MeshRequest], Awaitable[MeshAnswer]] = _no_mesh

    def close(self) -> None:
        self._store.close()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._batches.serve)
            if self._news:
                await self._nursery.start(self._news.serve)
            task_status.started()
            while True:
                await trio.sleep(EXPIRE_S)
                self._batches.post(expiring)

    async def ask(self, request: messages.StateRequest, asker: Asker, turn: Turn | None = None) -> messages.StateAnswer:
        """Raises `potluck.errors.Error`. With a `turn`, looks things up during it alone; it goes on after this."""
        if isinstance(request, ErrandRequest):
            return await self.errands.ask(request, asker)
        if isinstance(request, MeshRequest):
            if asker.app:
                raise RefusedError("A worker is not told who is on the mesh.")
            return await self.members(request)
        if isinstance(request, TunnelRequest):
            return await self.tunnels.ask(request, asker)
        turn = turn or Turn()
        if isinstance(request, VolumeRequest) or getattr(request, "kind", "") == VOLUME:
            _require_trust(asker)
        if isinstance(request, VolumeRequest):
            return await self._ask_volumes(request, asker, turn)
        if isinstance(request, messages.Enqueue | messages.Dequeue | messages.Peek):
            return await self._patiently(request, asker, turn)
        self._check_unnamed(request, asker)
        await turn.begin()
        answer = (await self._batches.run(doing(request, asker), lambda made: self._left_behind(request, made))).answer
        if isinstance(answer, messages.Holder) and isinstance(request, messages.Open) and not request.name:
            self._made[asker.name][answer.id] = messages.Delete(answer.kind, answer.id)
        elif isinstance(request, messages.Delete) and asker.name in self._made:
            self._made[asker.name].pop(request.id, None)
        if isinstance(request, messages.Delete) and request.kind == VOLUME and self.volumes:
            self.volumes.deleted()
        return answer

    async def transact(self, do: Callable[[Work], T]) -> T:
        """Do something of the node's own, on disk when this returns. Checks come before the first write; a call that
        fails may be repeated. Raises `potluck.errors.Error`."""
        came: list[T] = []

        def doing_it(work: Work) -> Outcome:
            came[:] = [do(work)]
            return Outcome(messages.Yes())

        await self._batches.run(doing_it)
        return came[0]

    async def _ask_volumes(self, request: VolumeRequest, asker: Asker, turn: Turn) -> messages.StateAnswer:
        if self.volumes is None:
            raise InvalidError("This node keeps no volumes.")
        await turn.begin()
        return await self.volumes.ask(request, asker)

    def _check_unnamed(self, request: messages.StoredRequest, asker: Asker) -> None:
        unnamed = isinstance(request, messages.Open) and not request.name
        if unnamed and len(self._made.get(asker.name, ())) >= messages.UNNAMED_MAX:
            raise RefusedError(f"{messages.UNNAMED_MAX} dicts and queues without a name are in use.", fix="End some.")

    @property
    def waiting(self) -> int:
        """Requests that wait for an item, or for room."""
        return self._asleep

    def left(self, asker: str) -> None:
        """Whoever has this name is gone: what it made without a name ends."""
        self.errands.left(asker)
        self.tunnels.left(asker)
        for request in self._made.pop(asker, {}).values():
            self._batches.post(doing(request, Asker(asker)))
        if self.volumes:
            self.volumes.left(asker)

    def _left_behind(self, request: messages.StoredRequest, made: Outcome) -> None:
        if isinstance(request, messages.Open) and not request.name and isinstance(made.answer, messages.Holder):
            self._batches.post(doing(messages.Delete(request.kind, made.answer.id), Asker("")))

    def start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run something as long as this is served."""
        assert self._nursery, "shared state is not being served"
        self._nursery.start_soon(task, *args)

    def desk(self, asker: Asker, tell: Tell, ready: Ready = trio.lowlevel.checkpoint) -> Desk:
        """Where one client, or one lease, asks. `tell` is given the answers; `ready` waits while too many of them wait
        to be sent."""
        return Desk(self, asker, tell, ready)

    # Waiting

    async def _patiently(
        self, request: messages.Enqueue | messages.Dequeue | messages.Peek, asker: Asker, turn: Turn
    ) -> messages.StoredAnswer:
        """Try, then again whenever there is news, until the time is over."""
        spot = Spot(request.id, request.partition, _WAITS_FOR[type(request)])
        number = next(self._numbers)
        deadline = trio.current_time() + (request.wait_us / 1e6 if request.wait_us >= 0 else float("inf"))
        try:
            while True:
                # First the event: news that come while we try must not be lost.
                news = self._waiters[number] = trio.Event()
                self._waiting.wait(spot, number)
                await turn.begin()
                outcome = await self._batches.run(doing(request, asker), lambda taken: self._put_back(spot, taken))
                if not request.wait_us or not _in_vain(outcome.answer):
                    return outcome.answer
                turn.end()
                await self._sleep(news, deadline)
                if not news.is_set():
                    return outcome.answer
        finally:
            self._go(spot, number)

    async def _sleep(self, news: trio.Event, deadline: float) -> None:
        self._asleep += 1
        try:
            with trio.move_on_at(deadline):
                await news.wait()
        finally:
            self._asleep -= 1

    def _go(self, spot: Spot, number: int) -> None:
        """A waiter leaves; if it was this one's turn, the next may use it."""
        self._waiting.leave(spot, number)
        if self._waiters.pop(number).is_set():
            self._tell({spot: 1})

    def _put_back(self, spot: Spot, outcome: Outcome) -> None:
        """Whoever took these items did not wait for them."""
        if isinstance(outcome.answer, messages.Values) and outcome.taken:
            self._batches.post(putting_back(spot, list(zip(outcome.taken, outcome.answer.values, strict=True))))

    def _tell(self, news: dict[Spot, int]) -> None:
        for spot, count in news.items():
            if spot == APPS_CHANGED:
                self._tell_apps()
            self._wake(self._waiting.wake(spot, count))
            if spot.what == ITEMS:
                self._wake(self._waiting.wake(spot._replace(what=LOOK), sys.maxsize))
            elif spot.what == GONE:
                self._wake(self._waiting.wake_all(lambda place, gone=spot.holder: place.holder == gone))  # type: ignore[misc]

    def _tell_all(self) -> None:
        self._tell_apps()
        self._wake(self._waiting.wake_all(lambda place: True))

    def _tell_apps(self) -> None:
        for tell in self.on_apps:
            tell()

    def _wake(self, numbers: list[int]) -> None:
        for number in numbers:
            self._waiters[number].set()


def _require_trust(asker: Asker) -> None:
    """Raises `RefusedError`: what a function wrote would come back from whoever ran it, unseen."""
    if not asker.trusted:
        raise RefusedError(
            "Workers on this peer may not use volumes.",
            why="the peer is not trusted",
            fix="Name it in the setting `trust` of the caller's node.",
        )


def _in_vain(answer: messages.StoredAnswer) -> bool:
    """Whether there was nothing to take, or no room."""
    match answer:
        case messages.Yes(yes):
            return not yes
        case messages.Values(values) | messages.Page(values=values):
            return not values
    return False


# Requests of one lease that may be large, or whose answer may be, are handled so many at a time.
AT_ONCE = 8
# A request of this size is large, in bytes.
LARGE_BYTES = 1 << 20

_SMALL_ANSWERS = (messages.Put, messages.Enqueue, messages.Has, messages.Count, StageData)


class Turn:
    """One place among those of `places`, from `begin` to `end`; without places there is always one. Both may be said
    twice."""

    def __init__(self, places: trio.Semaphore | None = None) -> None:
        self._places, self._has = places, False

    async def begin(self) -> None:
        if self._places and not self._has:
            await self._places.acquire()
            self._has = True

    def end(self) -> None:
        if self._places and self._has:
            self._places.release()
            self._has = False


_LEFT: Failure | None = Failure.of(InputCancellation("Nobody waited for this any more."))

# Takes the number of the request, and the answer or why there is none.
Tell = Callable[[int, bytes, Failure | None], None]
Ready = Callable[[], Awaitable[None]]


class Desk:
    """Made by `State.desk`. Requests have the asker's numbers."""

    def __init__(self, state: State, asker: Asker, tell: Tell, ready: Ready) -> None:
        self._state, self._asker, self._tell, self._ready = state, asker, tell, ready
        self._places = trio.Semaphore(AT_ONCE)
        self._open: dict[int, trio.CancelScope] = {}

    def ask(self, number: int, payload: bytes) -> None:
        """Answer, when it is time."""
        if number in self._open or len(self._open) >= messages.ASKS_MAX:
            self._tell(
                number, b"", Failure.of(RefusedError(f"{messages.ASKS_MAX} requests wait for an answer already."))
            )
            return
        self._open[number] = trio.CancelScope()
        self._state.start(self._answer, number, payload)

    def leave(self, number: int) -> None:
        """Nobody waits for this answer any more; it is told that."""
        if number in self._open:
            self._open[number].cancel()

    def close(self) -> None:
        """The asker is gone."""
        self._tell = lambda number, payload, failure: None
        for scope in self._open.values():
            scope.cancel()
        self._state.left(self._asker.name)

    async def _answer(self, number: int, payload: bytes) -> None:
        """What is read into memory waits until what was read before is on its way."""
        answer, failure, turn = b"", _LEFT, Turn(self._places)
        try:
            with self._open[number]:
                answer, failure = await self._answered(payload, turn), None
        except Error as error:
            failure = Failure.of(error)
        finally:
            del self._open[number]
            self._tell(number, answer, failure)
            turn.end()

    async def _answered(self, payload: bytes, turn: Turn) -> bytes:
        if len(payload) > LARGE_BYTES:
            await turn.begin()
        request = wire.decode(payload, messages.StateRequest)
        small = isinstance(request, _SMALL_ANSWERS) and len(payload) <= LARGE_BYTES
        if not small:
            await self._ready()
        return wire.encode(await self._state.ask(request, self._asker, Turn() if small else turn))


async def _no_mesh(request: MeshRequest) -> MeshAnswer:
    raise InvalidError(
        "This node is on no private mesh.", fix="Found one: potluck mesh create NAME; or join one: potluck join TOKEN"
    )
