"""A report every weekday at six in the morning, and a look every ten minutes, while some node is up.

potluck deploy examples/nightly.py
potluck app schedules
potluck app run-schedule nightly report
"""

import potluck

app = potluck.App("nightly")
seen = potluck.Dict.from_name("nightly-seen", create_if_missing=True)


@app.function(schedule=potluck.Period(minutes=10))
def look() -> None:
    seen["looks"] = seen.get("looks", 0) + 1


@app.function(schedule=potluck.Cron("0 6 * * 1-5", timezone="Europe/Berlin"), retries=2)
def report(title: str = "looks so far") -> str:
    line = f"{title}: {seen.get('looks', 0)}"
    print(line)
    return line
