"""Functions for tests of quotas and limits."""

import time

import potluck

app = potluck.App("quota")


@app.function()
def work(number: int, seconds: float = 0.5) -> int:
    time.sleep(seconds)
    return 2 * number
