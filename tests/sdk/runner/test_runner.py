"""The runner as a plain process, without a sandbox around it."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from potluck import wire
from potluck.frames import FrameReader, encode_frame
from potluck.wire.common import FunctionSpec
from potluck.wire.worker import (
    FromWorker,
    FromZygote,
    InputSucceeded,
    KillWorker,
    RunInput,
    SpawnWorker,
    StartZygote,
    WorkerExited,
    WorkerLog,
    WorkerReady,
    WorkerSpawned,
    ZygoteFailed,
    ZygoteReady,
)

TIMEOUT_S = 20.0
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
HERE = sys.modules[__name__]


class Channel:
    """Blocking messages over one end of a socket pair."""

    def __init__(self, sock: socket.socket, kind: Any) -> None:
        self.socket, self._kind = sock, kind
        sock.settimeout(TIMEOUT_S)
        self._reader = FrameReader()
        self._bodies: list[bytes] = []

    def send(self, message: Any, handed: socket.socket | None = None) -> None:
        fds = [] if handed is None else [handed.fileno()]
        socket.send_fds(self.socket, [encode_frame(wire.encode(message))], fds)

    def receive(self) -> Any:
        """The next message; None at the end."""
        while not self._bodies:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:  # it died with unread input
                data = b""
            if not data:
                return None
            self._bodies += self._reader.feed(data)
        return wire.decode(self._bodies.pop(0), self._kind)


@contextlib.contextmanager
def zygote(spec: FunctionSpec, protocol: int = wire.PROTOCOL, folder: Path | None = None) -> Iterator[Channel]:
    ours, theirs = socket.socketpair()
    program = [sys.executable, "-c", "from potluck.runner.zygote import main; main()"]
    with ours, subprocess.Popen(program, stdin=theirs, cwd=folder) as process:
        theirs.close()
        try:
            channel = Channel(ours, FromZygote)
            channel.send(StartZygote(protocol, spec))
            yield channel
        finally:
            ours.close()
            assert process.wait(TIMEOUT_S) == 0


def spawn(parent: Channel, name: str, trouble: str = "") -> tuple[Channel, int]:
    ours, theirs = socket.socketpair()
    with theirs:
        parent.send(SpawnWorker(name), theirs)
    spawned = parent.receive()
    assert isinstance(spawned, WorkerSpawned)
    assert spawned.worker == name
    channel = Channel(ours, FromWorker)
    ready = channel.receive()
    assert isinstance(ready, WorkerReady)
    assert ready.trouble == trouble
    return channel, spawned.pid


def spec_of(function: Callable[..., Any], **fields: Any) -> FunctionSpec:
    cloudpickle.register_pickle_by_value(HERE)
    return FunctionSpec("app", "f", "", PYTHON, pickled=cloudpickle.dumps(function), **fields)


def test_numbers_differ_between_workers() -> None:
    with zygote(spec_of(lambda: random.random(), imports=("random",))) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        drawn = set()
        for name in ("a", "b"):
            channel, _ = spawn(parent, name)
            channel.send(RunInput(1, pickle.dumps(((), {}))))
            answer = channel.receive()
            assert isinstance(answer, InputSucceeded)
            drawn.add(pickle.loads(answer.payload))
            channel.socket.close()
            assert parent.receive() == WorkerExited(name, 0)
        assert len(drawn) == 2


def test_kill_is_reported() -> None:
    with zygote(spec_of(time.sleep)) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        channel.send(RunInput(1, pickle.dumps(((1000,), {}))))
        parent.send(KillWorker("w"))
        assert parent.receive() == WorkerExited("w", -signal.SIGKILL)
        assert channel.receive() is None
        channel.socket.close()


def test_workers_end_with_the_zygote() -> None:
    with zygote(spec_of(time.sleep)) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        channel.send(RunInput(1, pickle.dumps(((1000,), {}))))
    assert channel.receive() is None
    channel.socket.close()


def test_processor_time_is_counted() -> None:
    def busy() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    with zygote(spec_of(busy)) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        channel.send(RunInput(1, pickle.dumps(((), {}))))
        assert 40_000 <= channel.receive().cpu_us < 5_000_000
        channel.socket.close()


def forking() -> int:
    """The child returns from the user's function, too: its result must not be sent."""
    if os.fork() == 0:
        print("child")
        return 2
    os.wait()
    return 1


def test_a_forked_copy_does_not_answer() -> None:
    with zygote(spec_of(forking)) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        channel.send(RunInput(1, pickle.dumps(((), {}))))
        messages = []
        while not messages or isinstance(messages[-1], WorkerLog):
            messages.append(channel.receive())
        assert pickle.loads(messages[-1].payload) == 1
        assert b"child\n" in b"".join(message.data for message in messages[:-1])
        channel.socket.close()
        assert parent.receive() == WorkerExited("w", 0)


MODULE = """
print("imported")
def plain(): return "plain"
class Wrapped:
    def get_raw_f(self): return plain
wrapped = Wrapped()
class Space:
    @staticmethod
    def method(): return "method"
number = 5
"""


@pytest.mark.parametrize(("name", "value"), [("plain", "plain"), ("wrapped", "plain"), ("Space.method", "method")])
def test_functions_of_modules(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "user_module.py").write_text(MODULE)
    spec = FunctionSpec("app", name, "", PYTHON, module="user_module", qualname=name)
    with zygote(spec, folder=tmp_path) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        channel.send(RunInput(1, pickle.dumps(((), {}))))
        assert pickle.loads(channel.receive().payload) == value
        channel.socket.close()


FAILURES: list[tuple[str, dict[str, Any], str, str]] = [
    ("import sklearn_not_here", {}, "image-import", "sklearn_not_here"),
    ("from os import no_such_name", {}, "image-import", "could not be imported"),
    ("1 / 0", {}, "execution", "raised an exception"),
    ("def f(:", {}, "execution", "raised an exception"),
    ("raise SystemExit(0)", {}, "execution", "raised an exception"),
    ("", {}, "not-found", "has no 'f'"),
    ("f = 5", {}, "invalid", "is a int, not a function"),
    ("", {"python": "2.7"}, "python-version", "The caller runs Python 2.7"),
]


@pytest.mark.parametrize(("source", "fields", "kind", "text"), FAILURES, ids=[case[0] or case[2] for case in FAILURES])
def test_failures_are_told(tmp_path: Path, source: str, fields: dict[str, str], kind: str, text: str) -> None:
    (tmp_path / "user_module.py").write_text(source)
    spec = FunctionSpec("app", "f", "", fields.get("python", PYTHON), module="user_module", qualname="f")
    with zygote(spec, folder=tmp_path) as parent:
        answer = parent.receive()
        assert isinstance(answer, ZygoteFailed)
        assert (answer.failure.kind, text in answer.failure.what) == (kind, True), answer.failure


def test_tracebacks_begin_in_the_users_module(tmp_path: Path) -> None:
    (tmp_path / "user_module.py").write_text("def boom():\n    1 / 0  # here\nboom()\n")
    spec = FunctionSpec("app", "f", "", PYTHON, module="user_module", qualname="f")
    with zygote(spec, folder=tmp_path) as parent:
        answer = parent.receive()
    lines = answer.exception.traceback.splitlines()
    assert "user_module.py" in lines[1]
    assert "1 / 0  # here" in answer.exception.traceback
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_another_protocol_is_refused() -> None:
    with zygote(spec_of(time.sleep), protocol=999) as parent:
        answer = parent.receive()
        assert (answer.failure.kind, "999" in answer.failure.what) == ("version", True)


def test_package_names_of_modules() -> None:
    from potluck.runner.failures import missing_module

    refusal = missing_module(ModuleNotFoundError("No module named 'cv2'", name="cv2"), "f")
    assert 'image.pip_install("opencv-python-headless")' in str(refusal.message)
    refusal = missing_module(ModuleNotFoundError("x", name="google.protobuf"), "f")
    assert 'image.pip_install("protobuf")' in str(refusal.message)


def test_the_runner_is_light() -> None:
    """It is started for every sandbox: nothing but the standard library, and none of its slow parts."""
    runner = Path(sys.modules["potluck"].__file__ or "").parent / "runner"
    program = (
        f"import sys, importlib.util as u; s = u.spec_from_file_location('r', {str(runner / '__init__.py')!r}); "
        "m = u.module_from_spec(s); sys.modules['r'] = m; import r.zygote; print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {
        "msgspec",
        "cloudpickle",
        "potluck",
        "asyncio",
        "inspect",
        "typing_extensions",
        "logging",
        "traceback",
        "typing",
        "pickle",
        "re",
    }
    assert heavy & set(done.stdout.split()) == set()
