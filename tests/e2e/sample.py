"""Functions for end-to-end tests; shipped as source like any user's module."""

import asyncio
import dataclasses
import os
import subprocess
import sys
import threading
import time

import potluck

app = potluck.App("sample")


@dataclasses.dataclass
class Point:
    x: int
    y: int


class OwnError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


@app.function()
def add(a: int, b: int = 1) -> int:
    return a + b


@app.function()
async def add_async(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@app.function()
def move(point: Point) -> Point:
    return Point(point.x + 1, point.y + 1)


@app.function()
def fail(code: int) -> None:
    raise OwnError(code)


@app.function()
def chat(text: str) -> str:
    print(f"out {text}")
    print(f"err {text}", file=sys.stderr)
    return text


@app.function()
def chat_slowly(text: str) -> str:
    time.sleep(0.3)
    print(f"out {text}")
    return text


@app.function()
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.function()
def slow_square(x: int) -> int:
    time.sleep(0.3)
    return x * x


@app.function(timeout=1)
def too_slow() -> None:
    time.sleep(60)


@app.function()
def crash() -> None:
    os.abort()


@app.function(memory=64)
def eat_memory() -> int:
    return len(bytearray(2 << 30))


@app.function()
def unpicklable() -> dict:
    return {"model": threading.Lock()}


@app.function()
def missing_import() -> None:
    import a_module_that_nobody_has  # noqa: F401


@app.function(env={"GREETING": "hello"})
def environment(name: str) -> str | None:
    return os.environ.get(name)


@app.function(gpu="H100")
def needs_gpu() -> None:
    pass


@app.function()
def echo(data: bytes) -> bytes:
    return data


@app.function()
def look(path: str) -> list[str]:
    """What a path shows inside, or why it does not."""
    try:
        return os.listdir(path)
    except OSError as error:
        return [type(error).__name__]


@app.function()
def dial(port: int) -> str:
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return "connected"
    except OSError as error:
        return type(error).__name__


@app.function()
def flood() -> None:
    while True:
        print("x" * 10_000)


@app.function()
def command_line(command: str) -> str:
    return subprocess.check_output(command, shell=True, text=True)
