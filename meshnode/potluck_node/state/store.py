"""Shared state on a database: requests in, answers out, as many as there are in one transaction. Blocks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from potluck.errors import ConnectionError, Error, InvalidError, NotFoundError, SerializationError, StoreFullError
from potluck.wire import state as messages
from potluck.wire.volumes import RenameVolume
from potluck_node.core.trust import is_data
from potluck_node.state import dicts, holders, queues
from potluck_node.state.work import Asker, Outcome, Spot, Work

log = logging.getLogger("potluck.state")

# The channel on which nodes of one PostgreSQL database tell each other where there is news.
CHANNEL = "potluck_state"

# Something to be done in a transaction.
Do = Callable[[Work], Outcome]


class Done(NamedTuple):
    """What came of each, and the news: where others may go on, and how many."""

    outcomes: list[Outcome | Error]
    news: dict[Spot, int]


class StateStore:
    """`node` is the peer id; `limit` bounds all values and keys, in bytes. One thread at a time may use it."""

    def __init__(self, engine: Engine, node: str, limit: int) -> None:
        self._engine, self._node, self._limit = engine, node, limit
        self.shared = engine.dialect.name == "postgresql"
        # Before anything else: nobody is left of those to whom unnamed ones belonged.
        self._transact([_cleaned], 0)

    def close(self) -> None:
        self._engine.dispose()

    def run(self, work: Sequence[Do], now_us: int) -> Done:
        """Do all of it, on disk when this returns. Each is done whole, or not at all and has an error."""
        try:
            return self._transact(work, now_us)
        except Exception as error:  # noqa: BLE001 - whatever a driver makes of what a stranger sent must end nothing else
            if len(work) == 1:
                return Done([_failure(error)], {})
        # One of them cannot be done: the others must not suffer.
        parts = [self.run([each], now_us) for each in work]
        return Done([part.outcomes[0] for part in parts], _sum([part.news for part in parts]))

    def _transact(self, work: Sequence[Do], now_us: int) -> Done:
        outcomes: list[Outcome | Error] = []
        with self._engine.begin() as db:
            here = Work(db, now_us, self._node, self._limit)
            for each in work:
                try:
                    outcomes.append(each(here))
                except Error as error:  # checks come before the first write
                    outcomes.append(error)
            if self.shared:
                for spot in here.news:
                    db.execute(text("SELECT pg_notify(:channel, :news)"), {"channel": CHANNEL, "news": written(spot)})
        return Done(outcomes, here.news)


def doing(request: messages.StoredRequest, asker: Asker) -> Do:
    """What a request means, for whoever asks."""

    def do(work: Work) -> Outcome:
        _check_data(request, asker)
        return _HANDLERS[type(request)](work, request, asker)

    return do


def putting_back(spot: Spot, taken: Sequence[tuple[int, bytes]]) -> Do:
    """See `queues.put_back`; of a queue that is gone, nothing."""

    def do(work: Work) -> Outcome:
        with contextlib.suppress(NotFoundError):
            queues.put_back(work, spot, taken)
        return Outcome(messages.Yes())

    return do


def expiring(work: Work) -> Outcome:
    """Forget partitions that are past their time."""
    queues.expire_all(work)
    return Outcome(messages.Yes())


def written(spot: Spot) -> str:
    """A spot as other nodes read it."""
    return f"{spot.holder} {spot.what} {spot.partition}"


def read(news: str) -> Spot:
    """Raises `ValueError`."""
    holder, what, partition = news.split(" ", 2)
    return Spot(holder, partition, what)


def _cleaned(work: Work) -> Outcome:
    holders.drop_unnamed(work)
    return Outcome(messages.Yes())


def _count(work: Work, request: messages.Count, _asker: Asker) -> Outcome:
    if request.id.startswith("qu-"):
        work.holder(messages.QUEUE, request.id)
        return Outcome(messages.Counted(queues.count(work, request)))
    work.holder(messages.DICT, request.id)
    return Outcome(messages.Counted(dicts.count(work, request.id)))


def _clear(work: Work, request: messages.Clear, _asker: Asker) -> Outcome:
    if request.id.startswith("qu-"):
        work.holder(messages.QUEUE, request.id)
        queues.clear(work, request)
    else:
        dicts.clear(work, request.id)
    return Outcome(messages.Yes())


def _check_data(request: messages.StoredRequest, asker: Asker) -> None:
    """What comes from a peer that is not trusted must not run code where it is read."""
    if asker.trusted or not isinstance(request, messages.Put | messages.Enqueue):
        return
    if not all(is_data(value) for value in request.values):
        raise SerializationError(
            "The value is a pickle, which would run code of whoever made it.",
            why="the peer that runs this function is not trusted",
            fix="Put plain values; or name the peer in the setting `trust` of the caller's node.",
        )


def _sum(parts: Sequence[dict[Spot, int]]) -> dict[Spot, int]:
    total: dict[Spot, int] = {}
    for part in parts:
        for spot, count in part.items():
            total[spot] = total.get(spot, 0) + count
    return total


def _failure(error: Exception) -> Error:
    why = str(getattr(error, "orig", None) or error)
    if not isinstance(error, SQLAlchemyError):
        log.warning("a request for shared state cannot be done", exc_info=error)
        return InvalidError("The database of shared state does not take this.", why=why)
    if "connect" in why or getattr(error, "connection_invalidated", False):
        return ConnectionError(
            "The database of shared state does not answer.",
            why=why,
            fix="Start it again. What was asked may have been done, if it went away just then.",
        )
    return StoreFullError("Shared state cannot be recorded.", why=why, fix="Make room.")


_HANDLERS: dict[type, Callable[[Work, Any, Asker], Outcome]] = {
    messages.Open: holders.open_one,
    messages.Find: holders.find,
    messages.Delete: holders.remove,
    messages.ListHolders: holders.list_all,
    messages.Grant: holders.grant,
    messages.Get: dicts.get,
    messages.Has: dicts.has,
    messages.Put: dicts.put,
    messages.Pop: dicts.pop,
    messages.Entries: dicts.page,
    messages.Count: _count,
    messages.Clear: _clear,
    messages.Enqueue: queues.enqueue,
    messages.Dequeue: queues.dequeue,
    messages.Peek: queues.peek,
    RenameVolume: holders.rename,
}
