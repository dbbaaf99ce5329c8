"""What every operation on shared state gets: the transaction, who asks, and where news are left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from potluck.errors import NotFoundError, StoreFullError
from potluck.wire.state import StoredAnswer
from potluck_node.state.tables import HOLDERS


@dataclass(frozen=True)
class Asker:
    """Who asks: a client of this node, which has no `app`, or a worker of an app. What is unnamed ends with `name`.

    A worker on a peer that is `trusted` may do what a client may: that peer's results run code here anyway. `peer` is
    where the worker is.
    """

    name: str
    app: str = ""
    trusted: bool = True
    peer: str = ""


# For what is waited: items to take, items to look at, room; and what ends all waiting: the queue is gone.
ITEMS, LOOK, ROOM, GONE = "items", "look", "room", "gone"


class Spot(NamedTuple):
    """A partition of a queue, and for what somebody waits there."""

    holder: str
    partition: str
    what: str = ITEMS


# What is told of deployed apps: any of them changed, or a token did, or a node asks for their key.
APPS_CHANGED = Spot("", "", "apps")


@dataclass
class Outcome:
    """An answer; `taken` are the numbers of the items in it."""

    answer: StoredAnswer
    taken: tuple[int, ...] = ()


@dataclass
class Work:
    """One transaction. `limit` bounds what all dicts and queues hold, in bytes."""

    db: Connection
    now_us: int
    node: str
    limit: int
    news: dict[Spot, int] = field(default_factory=dict)
    _used: int | None = None

    def tell(self, spot: Spot, count: int = 1) -> None:
        """Once this is committed, so many who wait there may go on."""
        self.news[spot] = self.news.get(spot, 0) + count

    def holder(self, kind: str, name: str) -> Row[tuple[object, ...]]:
        """By its id. Raises `NotFoundError`."""
        found = self.db.execute(select(HOLDERS).where(HOLDERS.c.id == name)).one_or_none()
        if found is None or found.kind != kind:
            raise NotFoundError(
                f"There is no {kind} {name[:40]!r}.", why="it was deleted, or what it belonged to ended"
            )
        return found

    def grow(self, holder: str, items: int, size: int) -> None:
        """Count what is added to, or taken from, a dict or queue. Raises `StoreFullError`."""
        if self._used is None:
            self._used = int(self.db.execute(select(func.coalesce(func.sum(HOLDERS.c.bytes), 0))).scalar_one())
        if size > 0 and self._used + size > self.limit:
            raise StoreFullError(
                "There is no room for more shared state.",
                why=f"dicts and queues hold {self._used >> 20} MiB, and the setting `state_gib` allows no more",
                fix="Remove some, or raise it.",
            )
        if items or size:
            grown = {"amount": HOLDERS.c.amount + items, "bytes": HOLDERS.c.bytes + size}
            self.db.execute(update(HOLDERS).where(HOLDERS.c.id == holder).values(grown))
            self._used += size
