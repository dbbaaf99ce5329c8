"""Retries, exceptions of one's own, and what a map does about them."""

import modal

app = modal.App("example-retrying")
attempts = {}


class Unlucky(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"unlucky {number}")
        self.number = number


@app.function(retries=modal.Retries(max_retries=3, initial_delay=0.0, backoff_coefficient=1.0), max_containers=1)
def flaky(number: int) -> int:
    attempts[number] = attempts.get(number, 0) + 1
    if attempts[number] < 3:
        raise Unlucky(number)
    return attempts[number]


@app.function()
def picky(number: int) -> int:
    if number == 2:
        raise Unlucky(number)
    return number


@app.function(timeout=1)
def slow():
    while True:
        pass


@app.local_entrypoint()
def main():
    print("attempts:", flaky.remote(7))
    try:
        picky.remote(2)
    except Unlucky as error:
        print("caught:", error.number)
    print("kept:", [type(each).__name__ for each in picky.map([1, 2, 3], return_exceptions=True)])
    try:
        slow.remote()
    except modal.exception.FunctionTimeoutError:
        print("timed out")
    except modal.exception.TimeoutError:
        print("some other timeout")
