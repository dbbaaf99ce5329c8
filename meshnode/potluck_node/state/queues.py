"""Operations on queues. None of them waits: `State` does, until there is news of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from potluck.errors import InvalidError
from potluck.wire import state as messages
from potluck_node.state.tables import HOLDERS, ITEMS, PARTITIONS
from potluck_node.state.work import ROOM, Asker, Outcome, Spot, Work


def enqueue(work: Work, request: messages.Enqueue, _asker: Asker) -> Outcome:
    """No for a partition that is full: it is marked, and there will be news of room. Raises `InvalidError` for what
    never fits, `StoreFullError`."""
    work.holder(messages.QUEUE, request.id)
    _check(request)
    found, size = _partition(work, request.id, request.partition), sum(map(len, request.values))
    items, held = (int(found.amount), int(found.bytes)) if found else (0, 0)
    if items + len(request.values) > messages.ITEMS_MAX or held + size > messages.PARTITION_BYTES_MAX:
        work.db.execute(update(PARTITIONS).where(*_here(request.id, request.partition)).values(wanted=True))
        return Outcome(messages.Yes(False))
    if not request.values:
        return Outcome(messages.Yes())
    if found is None:
        _check_partitions(work, request.id)
    work.grow(request.id, len(request.values), size)
    rows = [{"holder": request.id, "partition": request.partition, "value": value} for value in request.values]
    work.db.execute(insert(ITEMS), rows)
    expires_us = work.now_us + request.ttl_s * 1_000_000
    _count(work, request.id, request.partition, (items + len(rows), held + size), expires_us, fresh=found is None)
    work.tell(Spot(request.id, request.partition), len(rows))
    return Outcome(messages.Yes())


def dequeue(work: Work, request: messages.Dequeue, _asker: Asker) -> Outcome:
    """Nothing when there is nothing now."""
    work.holder(messages.QUEUE, request.id)
    found = _partition(work, request.id, request.partition)
    if found is None or request.most < 1:
        return Outcome(messages.Values())
    most = min(request.most, messages.ITEMS_MAX)
    numbers, _ = _first(work, request.id, request.partition, 0, most, messages.TAKEN_BYTES)
    # The first so many: all up to the last of them.
    query = delete(ITEMS).where(*_in(request.id, request.partition), ITEMS.c.number <= numbers[-1])
    rows = sorted(tuple(row) for row in work.db.execute(query.returning(ITEMS.c.number, ITEMS.c.value)))
    size = sum(len(value) for _, value in rows)
    _count(work, request.id, request.partition, (found.amount - len(rows), found.bytes - size), found.expires_us)
    work.grow(request.id, -len(rows), -size)
    if found.wanted:
        work.tell(Spot(request.id, request.partition, ROOM), messages.ITEMS_MAX)
    return Outcome(messages.Values(tuple(value for _, value in rows)), tuple(number for number, _ in rows))


def put_back(work: Work, spot: Spot, taken: Sequence[tuple[int, bytes]]) -> None:
    """Items that were taken out for somebody who is gone, to where they were."""
    work.holder(messages.QUEUE, spot.holder)
    found, size = _partition(work, spot.holder, spot.partition), sum(len(value) for _, value in taken)
    rows = [
        {"number": number, "holder": spot.holder, "partition": spot.partition, "value": value}
        for number, value in taken
    ]
    work.db.execute(insert(ITEMS), rows)
    items, held = (int(found.amount), int(found.bytes)) if found else (0, 0)
    expires_us = found.expires_us if found else work.now_us + messages.TTL_S_MAX * 1_000_000
    _count(work, spot.holder, spot.partition, (items + len(rows), held + size), expires_us, fresh=found is None)
    work.grow(spot.holder, len(rows), 0)
    work.tell(spot, len(rows))


def peek(work: Work, request: messages.Peek, _asker: Asker) -> Outcome:
    """Items after a number; an empty page when there are none now."""
    work.holder(messages.QUEUE, request.id)
    if _partition(work, request.id, request.partition) is None:
        return Outcome(messages.Page(last=request.after))
    at = request.id, request.partition, request.after
    numbers, more = _first(work, *at, messages.PAGE_ITEMS, messages.PAGE_BYTES)
    if not numbers:
        return Outcome(messages.Page(last=request.after))
    span = ITEMS.c.number.between(numbers[0], numbers[-1])
    query = select(ITEMS.c.value).where(*_in(request.id, request.partition), span).order_by(ITEMS.c.number)
    return Outcome(messages.Page((), tuple(work.db.execute(query).scalars()), more, numbers[-1]))


def count(work: Work, request: messages.Count) -> int:
    if request.total:
        _expire(work, request.id)
        return int(work.db.execute(select(HOLDERS.c.amount).where(HOLDERS.c.id == request.id)).scalar_one())
    found = _partition(work, request.id, request.partition)
    return int(found.amount) if found else 0


def clear(work: Work, request: messages.Clear) -> None:
    query = select(PARTITIONS).where(PARTITIONS.c.holder == request.id)
    if not request.all:
        query = query.where(PARTITIONS.c.name == request.partition)
    for row in work.db.execute(query).all():
        _drop(work, row)


def _partition(work: Work, holder: str, name: str) -> Any:
    """Its row, or None when it is empty; one that is past its time is emptied first."""
    found = work.db.execute(select(PARTITIONS).where(*_here(holder, name))).one_or_none()
    if found is not None and found.expires_us <= work.now_us:
        _drop(work, found)
        return None
    return found


def _expire(work: Work, holder: str) -> None:
    query = select(PARTITIONS).where(PARTITIONS.c.holder == holder, PARTITIONS.c.expires_us <= work.now_us)
    for row in work.db.execute(query).all():
        _drop(work, row)


def expire_all(work: Work) -> None:
    """Forget every partition that is past its time."""
    for row in work.db.execute(select(PARTITIONS).where(PARTITIONS.c.expires_us <= work.now_us)).all():
        _drop(work, row)


def _drop(work: Work, row: Any) -> None:
    work.db.execute(delete(ITEMS).where(*_in(row.holder, row.name)))
    work.db.execute(delete(PARTITIONS).where(*_here(row.holder, row.name)))
    work.grow(row.holder, -row.amount, -row.bytes)
    if row.wanted:
        work.tell(Spot(row.holder, row.name, ROOM), messages.ITEMS_MAX)


def _count(work: Work, holder: str, name: str, now: tuple[int, int], expires_us: int, *, fresh: bool = False) -> None:
    """Note how many items and bytes a partition has now; one without any has no row."""
    row = {"amount": now[0], "bytes": now[1], "expires_us": expires_us, "wanted": False}
    if fresh:
        work.db.execute(insert(PARTITIONS).values(holder=holder, name=name, **row))
    elif now[0]:
        work.db.execute(update(PARTITIONS).where(*_here(holder, name)).values(row))
    else:
        work.db.execute(delete(PARTITIONS).where(*_here(holder, name)))


def _first(work: Work, holder: str, partition: str, after: int, most: int, most_bytes: int) -> tuple[list[int], bool]:
    """The numbers of the first items that one answer takes, and whether there are more."""
    query = select(ITEMS.c.number, func.length(ITEMS.c.value)).where(*_in(holder, partition), ITEMS.c.number > after)
    taken: list[int] = []
    total = 0
    rows = work.db.execute(query.order_by(ITEMS.c.number).limit(most + 1)).all()
    for number, size in rows[:most]:
        total += size
        if taken and total > most_bytes:
            break
        taken.append(number)
    return taken, len(taken) < len(rows)


def _here(holder: str, name: str) -> tuple[Any, ...]:
    return PARTITIONS.c.holder == holder, PARTITIONS.c.name == name


def _in(holder: str, partition: str) -> tuple[Any, ...]:
    return ITEMS.c.holder == holder, ITEMS.c.partition == partition


def _check(request: messages.Enqueue) -> None:
    if len(request.values) > messages.ITEMS_MAX or sum(map(len, request.values)) > messages.PARTITION_BYTES_MAX:
        mib = messages.PARTITION_BYTES_MAX >> 20
        raise InvalidError(f"A partition holds at most {messages.ITEMS_MAX} items and {mib} MiB.", fix="Put fewer.")
    if any(len(value) > messages.ITEM_BYTES_MAX for value in request.values):
        raise InvalidError(
            f"An item of a queue has at most {messages.ITEM_BYTES_MAX >> 10} KiB.", fix="Put large values into a Dict."
        )
    if len(request.partition.encode()) > messages.PARTITION_NAME_MAX or not 0 < request.ttl_s <= messages.TTL_S_MAX:
        raise InvalidError(
            "A partition's name, or its partition_ttl, cannot be.",
            why=f"at most {messages.PARTITION_NAME_MAX} bytes, and {messages.TTL_S_MAX} seconds",
        )


def _check_partitions(work: Work, holder: str) -> None:
    query = select(func.count()).select_from(PARTITIONS).where(PARTITIONS.c.holder == holder)
    if work.db.execute(query).scalar_one() >= messages.PARTITIONS_MAX:
        raise InvalidError(f"A queue has at most {messages.PARTITIONS_MAX} partitions.")
