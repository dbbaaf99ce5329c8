"""Functions whose results are verified."""

import os
import time

import potluck

app = potluck.App("verified")


@app.function(verify="quorum:2of3")
def square(x: int) -> int:
    # So long that all peers are wanted.
    time.sleep(0.4)
    return x * x


@app.function(verify=potluck.Verify("none", canaries=[(7, 49)], canary_rate=1.0))
def tested(x: int) -> int:
    time.sleep(0.05)
    return x * x


# Sleeping, so that three providers on one machine do not fight for its cores.
PACE_S = 0.2


@app.function(verify="quorum:2of3")
def paced(x: int) -> int:
    time.sleep(PACE_S)
    return x


def is_root(inputs, result) -> bool:
    """Whether it is right can be told without a second machine."""
    return abs(result * result - inputs.args[0]) <= inputs.kwargs.get("within", 1e-6)


@app.function(verify=potluck.Verify(check=is_root))
def root(x: float, within: float = 1e-6) -> float:
    return x**0.5


@app.function(verify=potluck.Verify(atol=1.0))
def about(x: float) -> float:
    return x + os.urandom(1)[0] / 1000


def is_twice(inputs, result) -> bool:
    return result == [2 * inputs.args[0]]


@app.cls(verify=potluck.Verify(check=is_twice, canaries=[(7, [14])], canary_rate=1.0))
class Doubler:
    @potluck.method()
    def double(self, x: int) -> list[int]:
        time.sleep(0.05)
        return [2 * x]


@app.function(verify="quorum:2of2")
def noise() -> int:
    return int.from_bytes(os.urandom(8))
