"""Classes in the runner, as a plain process: when hooks run, in which process, and what becomes of their failures."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.runner.test_runner import PYTHON, Channel, spawn, zygote

from potluck.runner.codec import pack
from potluck.wire.common import FunctionSpec
from potluck.wire.worker import (
    InputRaised,
    InputRefused,
    InputSucceeded,
    RunInput,
    StopWorker,
    WorkerExited,
    WorkerLog,
    ZygoteFailed,
    ZygoteReady,
)

MODULE = """
import asyncio, os, time
import potluck

app = potluck.App("service")

@app.cls()
class Model:
    size: int = potluck.parameter(default=1)

    @potluck.enter(snap=True)
    def load(self):
        self.log = [("load", os.getpid())]

    @potluck.enter()
    async def connect(self):
        self.loop = asyncio.get_running_loop()
        self.log.append(("connect", os.getpid()))

    @potluck.method()
    def look(self):
        return self.size, os.getpid(), self.log

    @potluck.method()
    async def same_loop(self):
        return self.loop is asyncio.get_running_loop()

    @potluck.method()
    def inner(self, *, times):
        return [self.look.local()[0]] * times

    def plain(self):
        pass

    @potluck.exit()
    def fail_to_close(self):
        raise OSError("cannot close")

    @potluck.exit()
    async def close(self):
        print("closed", self.size)

@app.cls()
class Flaky:
    tries = 0

    @potluck.enter()
    def connect(self):
        self.tries += 1
        if self.tries < 3:
            raise SystemExit(f"try {self.tries}")

    @potluck.method()
    def call(self):
        return self.tries

    @potluck.exit()
    def close(self):
        print("closed")

@app.cls()
class Chatty:
    @potluck.enter()
    def connect(self):
        print("first", "x" * 100_000)
        os.write(2, b"last")

    @potluck.method()
    def call(self):
        print("call")

@app.cls()
class Slow:
    @potluck.enter()
    def connect(self):
        while not os.path.exists("go"):
            time.sleep(0.01)

    @potluck.method()
    def call(self):
        return 1

@app.cls()
class Broken:
    @potluck.enter(snap=True)
    async def load(self):
        raise KeyError("weights")  # here

@app.cls()
class Lacks:
    @potluck.enter(snap=True)
    def load(self):
        import cv2_not_here

number = 5
"""


def spec_of(folder: Path, name: str, parameters: Any = (), **fields: Any) -> FunctionSpec:
    (folder / "user_module.py").write_text(MODULE)
    return FunctionSpec(
        "app", name, "", PYTHON, module="user_module", qualname=name, parameters=pack(list(parameters)), **fields
    )


def ask(channel: Channel, method: str, *args: Any, **kwargs: Any) -> Any:
    channel.send(RunInput(1, pickle.dumps(((method, *args), kwargs))))
    return channel.receive()


def outcome(channel: Channel, method: str, *args: Any, **kwargs: Any) -> tuple[Any, str]:
    """The outcome, and what was printed for it."""
    message, printed = ask(channel, method, *args, **kwargs), []
    while isinstance(message, WorkerLog):
        assert message.input == 1
        printed.append(message.data.decode())
        message = channel.receive()
    return message, "".join(printed)


def value(channel: Channel, method: str, *args: Any, **kwargs: Any) -> Any:
    answer, _ = outcome(channel, method, *args, **kwargs)
    assert isinstance(answer, InputSucceeded), answer
    return pickle.loads(answer.payload)


def rest_of(channel: Channel) -> str:
    """What it still prints, up to its end."""
    printed = []
    while (message := channel.receive()) is not None:
        assert isinstance(message, WorkerLog)
        printed.append(message.data.decode())
    channel.socket.close()
    return "".join(printed)


def test_snap_runs_once_in_the_zygote_and_enter_once_in_each_worker(tmp_path: Path) -> None:
    with zygote(spec_of(tmp_path, "Model", [("size", 4)]), folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        first, second = spawn(parent, "a"), spawn(parent, "b")
        seen = [value(channel, "look") for channel, _ in (first, second, first)]
        loaders = {log[0] for _, _, log in seen}
        assert len(loaders) == 1
        assert loaders.isdisjoint({("load", first[1]), ("load", second[1])})
        assert [(size, log[1:]) for size, _, log in seen] == [
            (4, [("connect", pid)]) for _, pid in (first, second, first)
        ]
        assert value(first[0], "inner", times=2) == [4, 4]
        assert value(first[0], "same_loop")
        for channel, _ in (first, second):
            channel.socket.close()


def test_only_methods_can_be_called(tmp_path: Path) -> None:
    with zygote(spec_of(tmp_path, "Model"), folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "a")
        for name in ("plain", "load", "__init__", "nothing"):
            answer, _ = outcome(channel, name)
            assert isinstance(answer, InputRefused)
            assert name in answer.failure.what
        channel.socket.close()


def test_exit_runs_when_the_worker_is_stopped_and_its_errors_are_shown(tmp_path: Path) -> None:
    with zygote(spec_of(tmp_path, "Model", [("size", 3)]), folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "a")
        channel.send(StopWorker())
        printed = rest_of(channel)
        assert "closed 3" in printed
        assert "OSError: cannot close" in printed
        assert "in fail_to_close" in printed
        assert parent.receive() == WorkerExited("a", 1)


def test_a_failed_enter_is_the_outcome_of_an_input_and_the_next_one_tries_again(tmp_path: Path) -> None:
    with zygote(spec_of(tmp_path, "Flaky"), folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "a", "SystemExit: try 1")
        for number in (1, 2):
            answer, _ = outcome(channel, "call")
            assert isinstance(answer, InputRaised)
            assert (answer.exception.type_name, answer.exception.message) == ("SystemExit", f"try {number}")
            assert "in connect" in answer.exception.traceback
            assert "service.py" not in answer.exception.traceback
        assert value(channel, "call") == 3
        channel.send(StopWorker())
        assert "closed" in rest_of(channel)
        assert parent.receive() == WorkerExited("a", 0)


def test_what_entering_printed_is_shown_with_the_first_input_its_end_at_least(tmp_path: Path) -> None:
    with zygote(spec_of(tmp_path, "Chatty"), folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "a")
        _, printed = outcome(channel, "call")
        assert printed.endswith("x\nlastcall\n")
        assert "first" not in printed
        assert 10_000 < len(printed) < 70_000
        assert outcome(channel, "call")[1] == "call\n"
        channel.socket.close()


def test_exit_does_not_run_where_enter_never_succeeded(tmp_path: Path) -> None:
    with zygote(spec_of(tmp_path, "Flaky"), folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "a", "SystemExit: try 1")
        channel.send(StopWorker())
        assert rest_of(channel) == ""
        assert parent.receive() == WorkerExited("a", 0)


def test_a_worker_that_enters_for_too_long_is_ready_for_the_timeout_of_its_input(tmp_path: Path) -> None:
    with zygote(spec_of(tmp_path, "Slow", timeout_us=50_000), folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "a", "it was not ready after 0.05 s")  # which waits for WorkerReady
        channel.send(RunInput(1, pickle.dumps((("call",), {}))))
        (tmp_path / "go").touch()
        answer = channel.receive()
        assert isinstance(answer, InputSucceeded)
        channel.send(StopWorker())
        assert rest_of(channel) == ""  # it did not say that it is ready a second time
        assert parent.receive() == WorkerExited("a", 0)


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("Broken", "execution", "enter(snap=True), raised an exception"),
        ("Lacks", "image-import", "cv2_not_here"),
        ("number", "invalid", "is a int, not a class"),
        ("Model.nothing", "not-found", "has no"),
    ],
)
def test_what_fails_before_the_fork_is_told_once(tmp_path: Path, name: str, kind: str, what: str) -> None:
    with zygote(spec_of(tmp_path, name), folder=tmp_path) as parent:
        answer = parent.receive()
        assert isinstance(answer, ZygoteFailed)
        assert (answer.failure.kind, what in answer.failure.what) == (kind, True), answer.failure
        if name == "Broken":
            assert answer.exception
            assert 'raise KeyError("weights")  # here' in answer.exception.traceback
            assert "user_module.py" in answer.exception.traceback.splitlines()[1]
