"""Classes for end-to-end tests; shipped as source like any user's module."""

import os
import time

import potluck

app = potluck.App("classes")


@app.cls()
class Model:
    name: str = potluck.parameter(default="small")
    lines: list[str] = potluck.parameter(init=False)

    @potluck.enter(snap=True)
    def load(self) -> None:
        self.lines = [f"load {self.name}"]

    @potluck.enter()
    async def connect(self) -> None:
        self.lines.append(f"connect {os.getpid()}")

    @potluck.method()
    def where(self, _number: int) -> tuple[str, int, list[str]]:
        """This worker, and what it has been through."""
        return self.name, os.getpid(), self.lines

    @potluck.method()
    async def both(self, number: int, *, times: int = 2) -> int:
        return self.double.local(number) * times

    @potluck.method()
    def double(self, number: int) -> int:
        return 2 * number


@app.cls()
class NoWeights:
    @potluck.enter(snap=True)
    def load(self) -> None:
        raise FileNotFoundError("weights.bin")

    @potluck.method()
    def predict(self) -> None: ...


class DatabaseError(Exception):
    pass


@app.cls(retries=1)
class NoDatabase:
    tries = 0

    @potluck.enter()
    def connect(self) -> None:
        self.tries += 1
        print("connecting")
        raise DatabaseError(f"try {self.tries}")

    @potluck.method()
    def ask(self) -> None: ...


@app.cls(timeout=1)
class Sleeper:
    @potluck.enter()
    def sleep(self) -> None:
        time.sleep(1000)

    @potluck.method()
    def wake(self) -> None: ...
