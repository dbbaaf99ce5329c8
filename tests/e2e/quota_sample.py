"""Functions for tests of quotas and limits."""

import time

import potluck

app = potluck.App("quota")


@app.function()
def work(number: int, seconds: float = 0.5) -> int:
    time.sleep(seconds)
    return 2 * number


@app.function(max_gpu_seconds=2)
def limited(number: int, seconds: float) -> int:
    return work.local(number, seconds)


@app.function()
def outer(seconds: float) -> int:
    return work.remote(1, seconds)


@app.function(max_gpu_seconds=2)
def leaver(seconds: float) -> str:
    """Spawns, and is over."""
    return work.spawn(1, seconds).object_id


@app.function()
def lenient(seconds: float) -> list[str]:
    """Names what stops the functions that it calls."""
    found = []
    for call in (lambda: limited.remote(1, seconds), lambda: list(work.map([1], [seconds], max_gpu_seconds=1))):
        try:
            call()
        except Exception as error:
            found.append(type(error).__name__)
    return found
