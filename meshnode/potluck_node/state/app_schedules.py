"""Operations on schedules: the rows from which nodes plan, their leases, and the runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update

from potluck import wire
from potluck.errors import AlreadyExistsError, NotFoundError
from potluck.wire.apps import Schedule
from potluck_node.core.schedules import LEASE_US, Fire, Key
from potluck_node.core.schedules import Row as Planned
from potluck_node.state.app_tables import RUNS, SCHEDULES
from potluck_node.state.work import APPS_CHANGED, Work

# Runs kept of each schedule: some months of a daily one.
RUNS_MAX = 100
RUNNING, DONE, FAILED, LOST = "running", "done", "failed", "lost"
# Of why a run failed, in characters.
WHY_MAX = 1000

_encoder = msgspec.msgpack.Encoder()


def encoded(schedules: Mapping[str, Schedule]) -> bytes:
    """The schedules of a version, by function."""
    return _encoder.encode(schedules)


def replace_all(work: Work, app: str, schedules: bytes) -> None:
    """An app has these now; those that it had before, unchanged, go on as they were."""
    given = {name: _encoder.encode(each) for name, each in wire.decode(schedules, dict[str, Schedule]).items()}
    query = select(SCHEDULES.c.function, SCHEDULES.c.schedule).where(SCHEDULES.c.app == app)
    had = {function: bytes(schedule) for function, schedule in work.db.execute(query)}
    for function in had.keys() - {name for name, each in given.items() if had.get(name) == each}:
        work.db.execute(delete(SCHEDULES).where(*_at(Key(app, function))))
    for function, schedule in given.items():
        if had.get(function) != schedule:
            row = {"app": app, "function": function, "schedule": schedule, "since_us": work.now_us}
            work.db.execute(insert(SCHEDULES).values(row))


def forget(work: Work, app: str) -> None:
    """An app is no more."""
    for table in (SCHEDULES, RUNS):
        work.db.execute(delete(table).where(table.c.app == app))


def read(work: Work) -> list[Planned]:
    """What nodes plan from."""
    rows = work.db.execute(select(SCHEDULES).order_by(SCHEDULES.c.app, SCHEDULES.c.function)).all()
    return [
        Planned(
            Key(row.app, row.function), wire.decode(bytes(row.schedule), Schedule), row.since_us, row.last_us,
            row.holder, row.until_us, row.fence,
        )
        for row in rows
    ]  # fmt: skip


def claim(work: Work, keys: Iterable[Key], node: str) -> None:
    """Take, or keep, those leases that nobody else holds."""
    for key in keys:
        row = work.db.execute(select(SCHEDULES).where(*_at(key))).one_or_none()
        if row is not None and (row.holder == node or row.until_us <= work.now_us):
            held = {"holder": node, "until_us": work.now_us + LEASE_US, "fence": row.fence + (row.holder != node)}
            work.db.execute(update(SCHEDULES).where(*_at(key)).values(held))
    work.tell(APPS_CHANGED)


def fire(work: Work, fire: Fire, node: str, call: str) -> bool:
    """Record a run; False when the lease is lost, or somebody has recorded it."""
    row = work.db.execute(select(SCHEDULES).where(*_at(fire.key))).one_or_none()
    held = row is not None and (row.holder, row.fence) == (node, fire.fence) and row.until_us > work.now_us
    if row is None or not held or row.last_us >= fire.due_us:
        return False
    work.db.execute(update(SCHEDULES).where(*_at(fire.key)).values(last_us=fire.due_us))
    _record(work, fire.key, fire.due_us, node, call, fence=fire.fence)
    work.tell(APPS_CHANGED)
    return True


def run_now(work: Work, key: Key, node: str, call: str) -> None:
    """Record a run beside the schedule. Raises `NotFoundError`, `AlreadyExistsError`."""
    if work.db.execute(select(SCHEDULES.c.app).where(*_at(key))).one_or_none() is None:
        raise NotFoundError(f"{key.app} has no schedule for {key.function[:64]}.", fix="See `potluck app schedules`.")
    at = (*_run(key, work.now_us), RUNS.c.by_hand.is_(True))
    if work.db.execute(select(RUNS.c.app).where(*at)).one_or_none() is not None:
        raise AlreadyExistsError(f"{key.function} was started this very moment.", fix="Try again.")
    _record(work, key, work.now_us, node, call, by_hand=True)


def _record(work: Work, key: Key, due_us: int, node: str, call: str, *, by_hand: bool = False, fence: int = 0) -> None:
    row = {"due_us": due_us, "at_us": work.now_us, "node": node, "call": call, "state": RUNNING, "why": ""}
    work.db.execute(insert(RUNS).values(row | key._asdict() | {"by_hand": by_hand, "fence": fence}))
    at = (RUNS.c.app == key.app, RUNS.c.function == key.function)
    oldest = select(RUNS.c.due_us).where(*at).order_by(RUNS.c.due_us.desc()).offset(RUNS_MAX - 1).limit(1)
    limit = work.db.execute(oldest).scalar_one_or_none()
    if limit is not None:
        work.db.execute(delete(RUNS).where(*at, RUNS.c.due_us < limit))


def end(work: Work, call: str, state: str, why: str) -> None:
    """How a run ended."""
    at = (RUNS.c.call == call, RUNS.c.state == RUNNING)
    work.db.execute(update(RUNS).where(*at).values(state=state, why=why[:WHY_MAX]))


def running(work: Work, node: str) -> list[str]:
    """The calls of runs that a node has begun, as far as is recorded."""
    at = (RUNS.c.node == node, RUNS.c.state == RUNNING)
    return list(work.db.execute(select(RUNS.c.call).where(*at)).scalars())


def runs(work: Work, key: Key, count: int) -> list[Row[Any]]:
    """The last runs, the newest first."""
    at = (RUNS.c.app == key.app, RUNS.c.function == key.function)
    return list(work.db.execute(select(RUNS).where(*at).order_by(RUNS.c.at_us.desc()).limit(count)).all())


def _at(key: Key) -> tuple[Any, Any]:
    return SCHEDULES.c.app == key.app, SCHEDULES.c.function == key.function


def _run(key: Key, due_us: int) -> tuple[Any, ...]:
    return RUNS.c.app == key.app, RUNS.c.function == key.function, RUNS.c.due_us == due_us
