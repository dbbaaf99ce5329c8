"""Functions for tests of spawned calls."""

import time

import potluck

app = potluck.App("spawned")


@app.function()
def slow_double(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return 2 * number


@app.function()
def fail(text: str) -> None:
    raise ValueError(text)
