"""A function that calls another one, and says how long that took."""

import time

import potluck

app = potluck.App("nested")


@app.function(cpu=1, memory=256)
def noop(number: int) -> int:
    return number


@app.function(cpu=1, memory=256)
def calls(count: int) -> list[float]:
    """Microseconds of each."""
    taken = []
    for number in range(count):
        start = time.perf_counter_ns()
        noop.remote(number)
        taken.append((time.perf_counter_ns() - start) / 1000)
    return taken


@app.function(cpu=1, memory=256)
def fan_out(size: int) -> float:
    """Seconds."""
    start = time.perf_counter()
    assert list(noop.map(range(size))) == list(range(size))
    return time.perf_counter() - start
