"""When schedules run: the calendar, the clocks' changes, and that no time runs twice whatever nodes do."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from potluck import schedule as sdk
from potluck.errors import InvalidError
from potluck.wire.apps import Schedule
from potluck_node.core import schedules
from potluck_node.core.schedules import LATE_US_MAX, LEAD_US, LEASE_US, Claim, Fire, Key, Row, following, missed, plan
from potluck_node.state import app_schedules as records
from potluck_node.state import app_tables  # noqa: F401 - its tables
from potluck_node.state.tables import METADATA
from potluck_node.state.work import Work

SECOND_US = 1_000_000
DAY_US = 24 * 3600 * SECOND_US


def at(text):
    """Microseconds of a time in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * SECOND_US)


def times(schedule, since, count):
    found, after_us = [], at(since)
    for _ in range(count):
        after_us = following(schedule, at(since), after_us)
        found.append(datetime.fromtimestamp(after_us / SECOND_US, UTC).strftime("%m-%d %H:%M"))
    return found


def test_a_cron_keeps_to_the_clocks_of_its_zone():
    morning = Schedule(cron="0 6 * * *", timezone="Europe/Berlin")
    assert times(morning, "2026-03-27T12:00", 3) == ["03-28 05:00", "03-29 04:00", "03-30 04:00"]


def test_what_the_clocks_leave_out_runs_and_what_they_repeat_runs_once():
    night = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    # At 01:00 UTC on 29 March it is 3 o'clock at once; on 25 October half past two comes twice.
    assert times(night, "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:30"]
    assert len(times(night, "2026-10-24T12:00", 2)) == 2
    assert [each[:5] for each in times(night, "2026-10-24T12:00", 2)] == ["10-25", "10-26"]


def test_periods_follow_the_calendar():
    assert times(Schedule(months=1), "2026-01-31T10:00", 3) == ["02-28 10:00", "03-31 10:00", "04-30 10:00"]
    assert times(Schedule(us=90 * 60 * SECOND_US), "2026-01-01T00:00", 2) == ["01-01 01:30", "01-01 03:00"]
    assert times(Schedule(months=12, us=DAY_US), "2026-02-27T00:00", 2) == ["02-28 00:00", "02-29 00:00"]


VARIOUS = [
    Schedule(months=1),
    Schedule(us=7 * SECOND_US),
    Schedule(months=2, us=3 * DAY_US),
    Schedule(cron="*/7 3 * * 1"),
]


@given(
    st.sampled_from(
        [
            Schedule(months=1),
            Schedule(us=7 * SECOND_US),
            Schedule(months=2, us=3 * DAY_US),
            Schedule(cron="*/7 3 * * 1"),
        ]
    ),
    st.integers(0, 400 * DAY_US),
)
def test_the_newest_that_came_is_the_one_before_the_next(schedule, later_us):
    since_us = at("2026-01-31T00:00")
    now_us = since_us + later_us
    coming = following(schedule, since_us, now_us)
    assert coming > now_us
    newest = schedules._newest(schedule, since_us, now_us)
    if newest is not None:
        assert newest <= now_us
        assert following(schedule, since_us, newest) == coming


def test_what_was_missed_long_ago_is_not_made_up_for():
    daily, since_us = Schedule(us=10 * DAY_US), at("2026-01-01T00:00")
    due_us = since_us + 10 * DAY_US
    assert missed(daily, since_us, since_us, due_us + LATE_US_MAX) == due_us
    assert missed(daily, since_us, since_us, due_us + LATE_US_MAX + 1) is None
    assert missed(daily, since_us, due_us, due_us + 5) is None


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(cron="0 6 * *"),
        Schedule(cron="61 * * * *"),
        Schedule(cron="0 0 30 2 *"),
        Schedule(cron="* * * * * *"),
        Schedule(cron="0 6 * * *", timezone="Nowhere/Town"),
        Schedule(cron="0 6 * * *", timezone="../../etc/passwd"),
        Schedule(us=1),
        Schedule(us=-5, months=1),
        Schedule(months=10**9),
        Schedule(us=1 << 62),
    ],
)
def test_what_never_comes_is_refused(schedule):
    with pytest.raises(InvalidError):
        schedules.check(schedule)


def test_limits_repeat_those_of_the_sdk():
    ours = (schedules.PERIOD_US_MIN, schedules.PERIOD_US_MAX, schedules.PERIOD_MONTHS_MAX)
    assert ours == (sdk.PERIOD_US_MIN, sdk.PERIOD_US_MAX, sdk.PERIOD_MONTHS_MAX)


def test_a_lease_is_taken_shortly_before_and_by_one():
    key = Key("app", "tick")
    row = Row(key, Schedule(us=60 * SECOND_US), 0)
    assert plan([row], "one", 0) == ([], 60 * SECOND_US - LEAD_US)
    assert plan([row], "one", 60 * SECOND_US - LEAD_US) == ([Claim(key)], None)
    held = Row(key, row.schedule, 0, 0, "two", 65 * SECOND_US, 7)
    assert plan([held], "one", 60 * SECOND_US) == ([], 65 * SECOND_US)
    assert plan([held], "two", 60 * SECOND_US - 1) == ([], 60 * SECOND_US)
    assert plan([held], "two", 60 * SECOND_US) == ([Fire(key, 60 * SECOND_US, 7)], None)
    assert plan([held], "one", 65 * SECOND_US) == ([Claim(key)], None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "three"]), st.integers(0, 20 * SECOND_US), st.booleans(), st.integers(0, 9)
    ),
    max_size=80,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_no_time_runs_twice_and_the_last_node_makes_up_for_the_others(steps):
    """Nodes look when they like, with clocks that are apart, act on what they saw long ago, and die in between."""
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    every_us = 30 * SECOND_US
    fired, plans, now_us = [], {}, 0
    with engine.begin() as db:
        records.replace_all(Work(db, 0, "", 0), "app", records.encoded({"tick": Schedule(us=every_us)}))

        def act(node, actions, at_us):
            work = Work(db, at_us, node, 0)
            for action in actions:
                if isinstance(action, Claim):
                    records.claim(work, [action.key], node)
                elif records.fire(work, action, node, f"{len(fired)}"):
                    fired.append(action.due_us)

        for node, later_us, dies, skew in steps:
            now_us += later_us
            at_us = now_us + skew * SECOND_US
            act(node, plans.pop(node, ()), at_us)
            if not dies:
                plans[node] = plan(records.read(Work(db, at_us, node, 0)), node, at_us)[0]
        # One node is left, and looks whenever it wants to.
        now_us += 20 * SECOND_US
        until_us = now_us + LEASE_US + 4 * every_us
        while now_us < until_us:
            actions, wake_us = plan(records.read(Work(db, now_us, "four", 0)), "four", now_us)
            act("four", actions, now_us)
            now_us = now_us if actions else max(now_us + 1, wake_us)
    assert len(set(fired)) == len(fired)
    assert all(due_us % every_us == 0 for due_us in fired)
    last = [due_us for due_us in range(every_us, until_us, every_us) if due_us > until_us - 4 * every_us]
    assert set(last) <= set(fired)
    engine.dispose()


def test_the_newest_runs_are_kept():
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    key = Key("app", "tick")
    with engine.begin() as db:
        records.replace_all(Work(db, 0, "", 0), "app", records.encoded({"tick": Schedule(us=SECOND_US)}))
        for number in range(records.RUNS_MAX + 5):
            records.run_now(Work(db, number, "node", 0), key, "node", f"fc-{number}")
        found = records.runs(Work(db, 0, "node", 0), key, 1000)
        assert [row.due_us for row in found] == list(range(records.RUNS_MAX + 4, 4, -1))
    engine.dispose()
