"""When a deployed function runs by itself: `Cron` and `Period`, for `@app.function(schedule=…)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potluck.errors import InvalidError

if TYPE_CHECKING:
    from potluck.wire.apps import Schedule as Asked

_SECOND_US = 1_000_000
# More often than once a second nobody needs; ten years is for ever.
PERIOD_US_MIN, PERIOD_MONTHS_MAX = _SECOND_US, 120
PERIOD_US_MAX = PERIOD_MONTHS_MAX * 31 * 24 * 3600 * _SECOND_US


class Schedule:
    """When to run."""

    def _wire(self) -> Asked:
        raise NotImplementedError


class Cron(Schedule):
    """At the times of a cron expression of five fields (crontab(5)), such as "0 6 * * 1-5", in an IANA time zone.

    As with Debian's cron, a time that the clocks leave out runs as soon as they have, and one that they repeat runs
    once. Raises `InvalidError`; whether the fields can be is checked by `potluck deploy`.
    """

    def __init__(self, cron_string: str, timezone: str = "UTC") -> None:
        if not isinstance(cron_string, str) or len(cron_string.split()) != 5:
            raise InvalidError(
                f"{cron_string!r:.100} is no cron expression.",
                why="it has five fields: minute, hour, day of the month, month, day of the week",
                fix='Write Cron("0 6 * * *") for six every morning.',
            )
        if not isinstance(timezone, str) or not timezone:
            raise InvalidError(f"{timezone!r:.100} is no time zone.", fix='Write "Europe/Berlin", say.')
        self.cron_string, self.timezone = cron_string, timezone

    def __repr__(self) -> str:
        return f"Cron({self.cron_string!r}, timezone={self.timezone!r})"

    def _wire(self) -> Asked:
        from potluck.wire.apps import Schedule

        return Schedule(cron=self.cron_string, timezone=self.timezone)


class Period(Schedule):
    """Again and again after so much time, counted from when it was first deployed. Months and years are those of the
    calendar, in UTC. Raises `InvalidError` for less than a second, or more than ten years."""

    def __init__(
        self, *, years: int = 0, months: int = 0, weeks: int = 0, days: int = 0, hours: int = 0, minutes: int = 0,
        seconds: float = 0,
    ) -> None:  # fmt: skip
        self.months = 12 * years + months
        total_s = ((weeks * 7 + days) * 24 + hours) * 3600 + minutes * 60 + seconds
        self.us = round(total_s * _SECOND_US)
        within = 0 <= self.months <= PERIOD_MONTHS_MAX and 0 <= self.us <= PERIOD_US_MAX
        if not within or not (self.months or self.us >= PERIOD_US_MIN):
            raise InvalidError("A period is from one second to ten years.", fix="Write Period(days=1), say.")

    def __repr__(self) -> str:
        return f"Period(months={self.months}, seconds={self.us / _SECOND_US:g})"

    def _wire(self) -> Asked:
        from potluck.wire.apps import Schedule

        return Schedule(months=self.months, us=self.us)
