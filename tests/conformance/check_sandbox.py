"""What every sandbox promises. No pytest in here: any launcher, anywhere, can be held against it.

Each check takes `opener`: `async with opener(limits=..., **more fields of SandboxSpec) as zygote` gives a running
sandbox whose function is `apply`. Functions whose name begins with `inside_` run in the sandbox.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import trio

from potluck.errors import Error, ImageImportError
from potluck.wire.common import FunctionSpec
from potluck.wire.worker import (
    LOG_BYTES_MAX,
    InputRaised,
    InputRefused,
    InputSucceeded,
    RunInput,
    StopWorker,
    WorkerLog,
    WorkerReady,
)
from potluck_node.sandbox.interface import Limits, Worker, WorkerEnded, Zygote

# What runs inside is sent by value: this module is not in the image.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Opener = Callable[..., AbstractAsyncContextManager[Zygote]]

# A hung check fails after this many seconds; none takes longer than a few.
CHECK_TIMEOUT_S = 60.0


def apply(function: Callable[..., object], *args: object) -> object:
    return function(*args)


def function_spec(function: Callable[..., object] = apply, **fields: Any) -> FunctionSpec:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return FunctionSpec("test", function.__name__, "", python, pickled=cloudpickle.dumps(function), **fields)


class Outcome(NamedTuple):
    message: InputSucceeded | InputRaised | InputRefused
    logs: list[tuple[int, bytes]]

    @property
    def value(self) -> Any:
        assert isinstance(self.message, InputSucceeded), self.message
        return pickle.loads(self.message.payload)

    @property
    def exception(self) -> Any:
        assert isinstance(self.message, InputRaised), self.message
        return pickle.loads(self.message.exception.pickled)

    def text(self, stream: int) -> str:
        return b"".join(data for number, data in self.logs if number == stream).decode()


async def worker_of(zygote: Zygote, name: str = "w1") -> Worker:
    worker = await zygote.spawn(name)
    assert await worker.receive() == WorkerReady()
    return worker


@asynccontextmanager
async def one_worker(opener: Opener, **options: Any) -> AsyncIterator[tuple[Zygote, Worker]]:
    with trio.fail_after(CHECK_TIMEOUT_S):
        async with opener(**options) as zygote:
            yield zygote, await worker_of(zygote)


async def post(worker: Worker, function: Callable[..., object], *args: object, number: int = 1) -> None:
    await worker.send(RunInput(number, cloudpickle.dumps(((function, *args), {}), protocol=5)))


async def outcome_of(worker: Worker) -> Outcome:
    logs = []
    while isinstance(message := await worker.receive(), WorkerLog):
        logs.append((message.stream, message.data))
    assert not isinstance(message, WorkerReady)
    return Outcome(message, logs)


async def call(worker: Worker, function: Callable[..., object], *args: object) -> Outcome:
    await post(worker, function, *args)
    return await outcome_of(worker)


async def end_of(worker: Worker) -> WorkerEnded:
    """Receive to the end, which must be an end without an outcome."""
    while True:
        try:
            message = await worker.receive()
        except WorkerEnded as end:
            return end
        assert isinstance(message, WorkerLog), message


async def start_error(opener: Opener, **fields: Any) -> Error:
    """Why a sandbox with these fields does not start."""
    try:
        async with opener(**fields):
            pass
    except Error as error:
        return error
    raise AssertionError("the sandbox started")


async def goes_on(zygote: Zygote, name: str = "after") -> None:
    """The sandbox still forks workers that work."""
    assert zygote.alive
    assert (await call(await worker_of(zygote, name), inside_double, 21)).value == 42


# -- results and exceptions


def inside_double(number: int) -> int:
    return number * 2


async def inside_async_double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def check_results(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, worker):
        assert (await call(worker, inside_double, 4)).value == 8
        assert (await call(worker, lambda text: text[::-1], "abc")).value == "cba"
        assert worker.pid > 1
        assert zygote.ready.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}")


async def check_async_function(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        assert (await call(worker, inside_async_double, 5)).value == 10


async def check_pipelined_inputs(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        for number in range(20):
            await post(worker, inside_double, number, number=number)
        for number in range(20):
            outcome = await outcome_of(worker)
            assert (outcome.message.input, outcome.value) == (number, number * 2)


async def check_large_payload(opener: Opener) -> None:
    data = os.urandom(20 << 20)
    async with one_worker(opener) as (_, worker):
        assert (await call(worker, lambda data: data[::-1], data)).value == data[::-1]


class CustomError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return CustomError, (self.code,)


class FragileError(Exception):
    """Does not survive pickling: its constructor takes two arguments, its args hold one."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def inside_raise(error: BaseException) -> None:
    raise error


def inside_raise_fragile() -> None:
    raise FragileError(1, 2)


async def check_exceptions(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        outcome = await call(worker, inside_raise, CustomError(7))
        assert isinstance(outcome.message, InputRaised)
        assert outcome.exception.code == 7
        assert outcome.message.exception.message == "code 7"
        assert outcome.message.exception.type_name.endswith("CustomError")
        frames = [line for line in outcome.message.exception.traceback.splitlines() if "File" in line]
        assert "in apply" in frames[0], frames
        assert "in inside_raise" in frames[-1], frames
        fragile = (await call(worker, inside_raise_fragile)).message
        assert isinstance(fragile, InputRaised)
        assert (fragile.exception.pickled, fragile.exception.message) == (b"", "1 and 2")
        for ending in (SystemExit(3), KeyboardInterrupt()):
            assert type((await call(worker, inside_raise, ending)).exception) is type(ending)
        assert (await call(worker, inside_double, 1)).value == 2


class Model:
    def __init__(self) -> None:
        self.lock = threading.Lock()


def inside_unpicklable() -> object:
    return {"model": Model()}


def inside_generator() -> Any:
    yield 1


async def check_refusals(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        locked = (await call(worker, inside_unpicklable)).message
        assert isinstance(locked, InputRefused)
        assert locked.failure.kind == "serialization"
        assert locked.failure.what == "result['model'].lock: cannot pickle '_thread.lock' object"
        generator = (await call(worker, inside_generator)).message
        assert isinstance(generator, InputRefused)
        assert "generator" in generator.failure.what
        await worker.send(RunInput(9, b"cno_such_module_here\nthing\n."))
        missing = (await outcome_of(worker)).message
        assert isinstance(missing, InputRefused)
        assert (missing.failure.kind, missing.input) == ("image-import", 9)
        assert "no_such_module_here" in missing.failure.what
        assert (await call(worker, inside_double, 1)).value == 2


async def check_missing_import(opener: Opener) -> None:
    with trio.fail_after(CHECK_TIMEOUT_S):
        error = await start_error(opener, function=function_spec(imports=("no_such_module_here",)))
    assert isinstance(error, ImageImportError)
    assert "no_such_module_here" in error.what
    assert 'image.pip_install("no_such_module_here")' in error.fix


# -- output


def inside_print() -> None:
    print("one")
    print("two", file=sys.stderr)
    os.write(1, b"three\n")
    ctypes.CDLL(None).printf(b"four\n")
    ctypes.CDLL(None).fflush(None)
    print("five")
    subprocess.run(["/bin/sh", "-c", "echo six; echo seven >&2"], check=True)
    print("eight", end="")
    ctypes.CDLL(None).printf(b" nine")


async def check_output(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        outcome = await call(worker, inside_print)
        assert outcome.text(1) == "one\nthree\nfour\nfive\nsix\neight nine"
        assert outcome.text(2) == "two\nseven\n"
        assert [stream for stream, _ in outcome.logs[:3]] == [1, 2, 1]


async def check_long_output_is_cut(opener: Opener) -> None:
    size = 3 * LOG_BYTES_MAX + 17
    async with one_worker(opener) as (_, worker):
        outcome = await call(worker, lambda size: print("x" * size), size)
        assert outcome.text(1) == "x" * size + "\n"
        assert max(len(data) for _, data in outcome.logs) <= LOG_BYTES_MAX


def inside_flood(path: str, lines: int, line: str) -> None:
    for number in range(lines):
        print(line)
        with open(path, "w") as file:
            file.write(str(number + 1))


def inside_wait_until_still(path: str) -> int:
    """The number in `path` once it has stopped growing."""
    before, now = 0, 0
    while now == 0 or before != now:
        time.sleep(0.2)
        text = Path(path).read_text() if os.path.exists(path) else ""
        before, now = now, int(text or 0)
    return now


async def check_flood_waits_for_its_reader(opener: Opener) -> None:
    lines, line = 4096, "y" * (32 << 10)
    async with one_worker(opener) as (zygote, flooding):
        watching = await worker_of(zygote, "w2")
        await post(flooding, inside_flood, "/tmp/progress", lines, line)
        printed = (await call(watching, inside_wait_until_still, "/tmp/progress")).value
        assert printed < 1024, "128 MiB were printed though nobody reads"
        outcome = await outcome_of(flooding)
        assert outcome.text(1) == (line + "\n") * lines


# -- ends


async def check_kill(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, worker):
        other = await worker_of(zygote, "w2")
        await post(worker, time.sleep, 1000)
        await worker.kill()
        end = await end_of(worker)
        assert end.status == -signal.SIGKILL
        assert "signal 9" in end.reason
        await worker.kill()
        assert (await call(other, inside_double, 3)).value == 6
        await goes_on(zygote)


async def check_stop(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, worker):
        await worker.send(StopWorker())
        assert (await end_of(worker)).status == 0
        await goes_on(zygote)


def inside_crash(number: int) -> None:
    os.kill(os.getpid(), number)


async def check_crash(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, worker):
        await post(worker, inside_crash, signal.SIGSEGV)
        end = await end_of(worker)
        assert (end.status, end.reason) == (-signal.SIGSEGV, "killed by signal 11 (SIGSEGV)")
        leaving = await worker_of(zygote, "w2")
        await post(leaving, os._exit, 3)
        assert (await end_of(leaving)).reason == "exit 3"
        await goes_on(zygote)


async def check_sandbox_ends_with_its_workers(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, worker):
        await post(worker, time.sleep, 1000)
        await zygote.aclose()
        assert not zygote.alive
        assert await zygote.wait_ended() == "closed"
        assert "closed" in (await end_of(worker)).reason
        await zygote.aclose()


# -- commands beside the workers


async def output_of(channel: socket.socket) -> bytes:
    """All that a command writes until it closes its end."""
    stream, seen = trio.SocketStream(trio.socket.from_stdlib_socket(channel)), b""
    async with stream:
        async for data in stream:
            seen += data
    return seen


async def check_commands(opener: Opener) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd()); sys.exit(5)"
    async with one_worker(opener) as (zygote, _):
        for number, size in enumerate([(0, 0), (24, 80)]):
            ours, theirs = socket.socketpair()
            command = ("python3", "-c", code, "a b")
            assert await zygote.execute(f"command-{number}", command, size, theirs) == 5
            assert (await output_of(ours)).startswith(b"['a b'] /")
        await goes_on(zygote)


async def check_cancelled_command(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, _):
        ours, theirs = socket.socketpair()
        command = ("python3", "-c", "import time; print('begun', flush=True); time.sleep(1000)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(zygote.execute, "command-1", command, (0, 0), theirs)
            await trio.to_thread.run_sync(ours.recv, 6)
            nursery.cancel_scope.cancel()
        assert await output_of(ours) == b""
        await goes_on(zygote)


async def check_command_ends_with_its_sandbox(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, _):
        ours, theirs = socket.socketpair()
        command = ("python3", "-c", "import time; print('begun', flush=True); time.sleep(1000)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(zygote.execute, "command-1", command, (0, 0), theirs)
            await trio.to_thread.run_sync(ours.recv, 6)
            await zygote.aclose()
        ours.close()


# -- limits


def inside_eat(mib: int) -> int:
    held = [bytearray(1 << 20) for _ in range(mib)]
    for block in held:
        block[::4096] = b"x" * len(block[::4096])
    return len(held)


async def check_memory_limit(opener: Opener) -> None:
    async with one_worker(opener, limits=Limits(memory_mib=128)) as (zygote, worker):
        assert (await call(worker, inside_eat, 20)).value == 20
        await post(worker, inside_eat, 1000)
        assert (await end_of(worker)).reason == "out of memory: limit 128 MiB"
        await goes_on(zygote)


def inside_fork_bomb() -> tuple[int, int]:
    """How many processes could be started, and the error that ended it."""
    children: list[int] = []
    try:
        while len(children) < 5000:
            if (pid := os.fork()) == 0:
                signal.pause()
            children.append(pid)
    except OSError as error:
        return len(children), error.errno or 0
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return len(children), 0


async def check_process_limit(opener: Opener) -> None:
    async with one_worker(opener, limits=Limits(pids=40)) as (zygote, worker):
        other = await worker_of(zygote, "w2")
        started, error = (await call(worker, inside_fork_bomb)).value
        assert started < 40
        assert error == errno.EAGAIN
        assert (await call(other, inside_double, 3)).value == 6
        await goes_on(zygote)


def inside_fill(path: str) -> int:
    """The error number at which writing to `path` ends; at most 1 GiB."""
    try:
        with open(path, "wb") as file:
            for _ in range(1024):
                file.write(bytes(1 << 20))
    except OSError as error:
        os.unlink(path)
        return error.errno or 0
    return 0


async def check_scratch_limit(opener: Opener) -> None:
    async with one_worker(opener, limits=Limits(scratch_mib=20)) as (_, worker):
        for path in ("/tmp/full", "/dev/shm/full"):
            assert (await call(worker, inside_fill, path)).value == errno.ENOSPC
        assert (await call(worker, inside_double, 3)).value == 6


def inside_limits() -> dict[str, int]:
    names = ("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_FSIZE")
    return {name: resource.getrlimit(getattr(resource, name))[1] for name in names}


async def check_rlimits(opener: Opener) -> None:
    limits = Limits(open_files=99, file_mib=5)
    async with one_worker(opener, limits=limits) as (_, worker):
        have = (await call(worker, inside_limits)).value
        assert have == {"RLIMIT_NOFILE": 99, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": 5 << 20}


# Those of sandboxes in which the host's kernel picks a victim, so that a process that eats too much ends alone.
ALONE_CHECKS = [check_memory_limit]
CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_") and value not in ALONE_CHECKS]
