"""When scheduled functions run, and which node runs them. Pure.

Nodes that share a database each plan from the same rows. Shortly before a time comes, one of them takes the schedule's
lease; when it has come, that one records the run under its due time, and starts it if nobody has recorded it before. A
node that dies leaves a lease that ends by itself, and never a run that another could start again.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from potluck.errors import InvalidError
from potluck.wire.apps import Schedule

# A lease is taken so long before its time comes, and so another node may take over if its holder is silent for so long.
LEAD_US, LEASE_US = 5_000_000, 15_000_000
# Of the times that nobody was there for, the newest is made up for, if it is not older than this: a nightly job of a
# laptop that slept.
LATE_US_MAX = 24 * 3600 * 1_000_000

_SECOND_US = 1_000_000
# These repeat `potluck.schedule`; a test compares them.
PERIOD_US_MIN, PERIOD_MONTHS_MAX = _SECOND_US, 120
PERIOD_US_MAX = PERIOD_MONTHS_MAX * 31 * 24 * 3600 * _SECOND_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Key(NamedTuple):
    app: str
    function: str


@dataclass(frozen=True, slots=True)
class Row:
    """A schedule as it is recorded. `since_us` is when it was first deployed, `last_us` the newest due time that was
    recorded (or 0). `holder` has it until `until_us`, under the number `fence`, which grows with each holder."""

    key: Key
    schedule: Schedule
    since_us: int
    last_us: int = 0
    holder: str = ""
    until_us: int = 0
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the lease, or keep it."""

    key: Key


@dataclass(frozen=True, slots=True)
class Fire:
    """Record the run that is due and start it, if the lease is still held under this number."""

    key: Key
    due_us: int
    fence: int


def plan(rows: Iterable[Row], node: str, now_us: int) -> tuple[list[Claim | Fire], int | None]:
    """What this node does now, and when it has to look again unless a row changes (None: never)."""
    actions: list[Claim | Fire] = []
    times: list[int] = []
    for row in rows:
        after_us = max(row.last_us, row.since_us)
        due_us = missed(row.schedule, row.since_us, after_us, now_us)
        target_us = due_us or following(row.schedule, row.since_us, max(after_us, now_us))
        if target_us is None:
            continue
        if now_us < target_us - LEAD_US:
            times.append(target_us - LEAD_US)
        elif row.holder != node and row.until_us > now_us:
            times.append(row.until_us)
        elif row.holder != node or row.until_us <= max(now_us, target_us):
            actions.append(Claim(row.key))
        elif due_us:
            actions.append(Fire(row.key, due_us, row.fence))
        else:
            times.append(target_us)
    return actions, min(times, default=None)


def missed(schedule: Schedule, since_us: int, after_us: int, now_us: int) -> int | None:
    """The newest time after `after_us` that has come, unless it is too long ago."""
    found = _newest(schedule, since_us, now_us)
    return found if found is not None and found > after_us and now_us - found <= LATE_US_MAX else None


def following(schedule: Schedule, since_us: int, after_us: int) -> int | None:
    """The first time after `after_us`; None when there is none any more."""
    if not schedule.cron:
        return _period_time(schedule, since_us, _periods(schedule, since_us, after_us) + 1)
    return _cron_time(schedule, after_us, reverse=False)


def check(schedule: Schedule) -> None:
    """Raises `InvalidError` for what never comes, or cannot be."""
    try:
        if schedule.cron:
            ZoneInfo(schedule.timezone)
            if len(schedule.cron.split()) != 5 or following(schedule, 0, 0) is None:
                raise CronSimError("it never comes")
        elif not _possible(schedule):
            raise CronSimError("a period is from one second to ten years")
    except (CronSimError, ValueError, OSError, OverflowError, KeyError) as error:
        what = f"{schedule.cron!r:.100} in {schedule.timezone!r:.100}" if schedule.cron else "The period"
        raise InvalidError(
            f"{what} is no schedule.", why=str(error), fix='Write Cron("0 6 * * *", timezone="Europe/Berlin"), say.'
        ) from None


def _possible(period: Schedule) -> bool:
    within = 0 <= period.months <= PERIOD_MONTHS_MAX and 0 <= period.us <= PERIOD_US_MAX
    return within and (period.months > 0 or period.us >= PERIOD_US_MIN)


def _newest(schedule: Schedule, since_us: int, now_us: int) -> int | None:
    if schedule.cron:
        # Backwards the library leaves out its start.
        return _cron_time(schedule, now_us + 1, reverse=True)
    count = _periods(schedule, since_us, now_us)
    return _period_time(schedule, since_us, count) if count > 0 else None


def _cron_time(schedule: Schedule, at_us: int, *, reverse: bool) -> int | None:
    begin = (_EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(schedule.timezone))
    found = next(CronSim(schedule.cron, begin, reverse=reverse), None)
    return None if found is None else round(found.timestamp()) * _SECOND_US


def _periods(schedule: Schedule, since_us: int, at_us: int) -> int:
    """How many periods have passed at a time."""
    longest_us = schedule.months * 31 * 24 * 3600 * _SECOND_US + schedule.us
    count = max(0, (at_us - since_us) // longest_us)
    while _period_time(schedule, since_us, count + 1) <= at_us:
        count += 1
    return count


def _period_time(schedule: Schedule, since_us: int, count: int) -> int:
    begin = _EPOCH + timedelta(microseconds=since_us)
    months = begin.month - 1 + schedule.months * count
    year, month = begin.year + months // 12, months % 12 + 1
    day = min(begin.day, calendar.monthrange(year, month)[1])
    moved = begin.replace(year=year, month=month, day=day)
    return (moved - _EPOCH) // timedelta(microseconds=1) + schedule.us * count
