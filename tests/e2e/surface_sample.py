"""Functions for the tests of what surrounds a call: settings, secrets, handles, finding by name."""

import os
import time

import potluck

app = potluck.App("surface")


@app.function(secrets=[potluck.Secret.from_local_environ(["SURFACE_TOKEN"])], env={"PLAIN": "shown"})
def reveal() -> tuple[str, str]:
    return os.environ["SURFACE_TOKEN"], os.environ["PLAIN"]


@app.function()
def add(a: int, b: int = 1) -> int:
    return a + b


@app.function()
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.function()
def count(to: int):
    yield from range(to)


@app.function()
def where() -> bool:
    return potluck.is_local()


@app.function()
def apply(function, *args):
    """Call a function that is handed over."""
    return function.local(*args)


@app.function()
def call_back(function) -> int:
    return function.remote(1)


@app.function()
def wait_for(call) -> int:
    return call.get()


@app.function()
def read(secret: potluck.Secret) -> dict[str, str]:
    return dict(potluck.secret.values(secret))


@app.cls()
class Adder:
    base: int = potluck.parameter()
    times: int = potluck.parameter(default=1)

    @potluck.method()
    def add(self, x: int) -> int:
        return self.base + x * self.times

    @potluck.method()
    def steps(self, to: int):
        for number in range(to):
            yield self.base + number
