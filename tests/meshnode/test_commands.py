"""Commands beside workers: for whom, how many, and what is left when they cannot be run."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.lowlevel

from potluck.errors import ConnectionError, NotFoundError, RefusedError, SandboxError
from potluck.wire.apps import CommandEnded, EndWork, RunCommand
from potluck.wire.control import Done
from potluck_node.commands import COMMANDS_MAX, Commands
from potluck_node.core.provider_events import WorkEnded


class Sandbox:
    """Counts what runs; ends when told to."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ending = trio.Event()

    async def execute(self, name: str, command: Sequence[str], size: tuple[int, int], channel: socket.socket) -> int:
        with channel:
            if command[0] == "gone":
                raise SandboxError("The sandbox has ended.")
            self.running.append(name)
            await self.ending.wait()
            channel.sendall(b"done")
        return 3


class Provider:
    def __init__(self, sandbox: Sandbox) -> None:
        self.workers = {"ann-1": ("me", sandbox), "ann-2": ("somebody", sandbox)}
        self.told: list[object] = []
        workers = [(name, "f", who, "idle", 0) for name, (who, _) in self.workers.items()]
        self.core = SimpleNamespace(workers=lambda: iter(workers))

    def submit(self, event: object) -> None:
        self.told.append(event)

    def sandbox_of(self, worker: str) -> tuple[str, Sandbox] | None:
        return self.workers.get(worker)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.fixture
def commands(sandbox: Sandbox) -> Commands:
    return Commands(Provider(sandbox), "me")  # type: ignore[arg-type]


@pytest.fixture
def listener(tmp_path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(tmp_path / "channel"))
    made.listen(COMMANDS_MAX + 1)
    return made


def asked(listener: socket.socket, worker: str = "ann-1", *command: str) -> RunCommand:
    return RunCommand(7, worker, command or ("true",), listener.getsockname())


async def test_a_command_talks_past_the_node(commands: Commands, sandbox: Sandbox, listener: socket.socket) -> None:
    sandbox.ending.set()
    assert await commands.run(asked(listener)) == CommandEnded(7, 3)
    connection, _ = listener.accept()
    assert connection.recv(10) == b"done"
    assert connection.recv(10) == b""


async def test_only_ones_own_workers_are_entered(commands: Commands, sandbox: Sandbox, listener: socket.socket) -> None:
    with pytest.raises(RefusedError, match="somebody else"):
        await commands.run(asked(listener, "ann-2"))
    with pytest.raises(NotFoundError, match="ann-3"):
        await commands.run(asked(listener, "ann-3"))
    with pytest.raises(NotFoundError):
        await Commands(None, "me").run(asked(listener))
    assert not sandbox.running


async def test_what_cannot_be_run_leaves_nothing_open(
    commands: Commands, listener: socket.socket, tmp_path: Path
) -> None:
    with pytest.raises(SandboxError):
        await commands.run(asked(listener, "ann-1", "gone"))
    connection, _ = listener.accept()
    assert connection.recv(10) == b""
    with pytest.raises(ConnectionError, match="cannot be reached"):
        await commands.run(RunCommand(7, "ann-1", ("true",), str(tmp_path / "absent")))
    with pytest.raises(RefusedError):
        await commands.run(RunCommand(7, "ann-1", (), listener.getsockname()))


async def test_there_is_an_end_to_commands_and_room_again(
    commands: Commands, sandbox: Sandbox, listener: socket.socket
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(COMMANDS_MAX):
            nursery.start_soon(commands.run, asked(listener))
        while len(sandbox.running) < COMMANDS_MAX:
            await trio.lowlevel.checkpoint()
        with pytest.raises(RefusedError, match=f"{COMMANDS_MAX} commands"):
            await commands.run(asked(listener))
        nursery.cancel_scope.cancel()
    assert len(set(sandbox.running)) == COMMANDS_MAX
    sandbox.ending.set()
    assert await commands.run(asked(listener)) == CommandEnded(7, 3)


def test_the_owner_ends_what_others_run_and_own_work_by_its_call(sandbox: Sandbox) -> None:
    provider = Provider(sandbox)
    commands = Commands(provider, "me")  # type: ignore[arg-type]
    assert commands.end(EndWork(3, "ann-2")) == Done(3)
    assert provider.told == [WorkEnded("ann-2")]
    with pytest.raises(RefusedError, match="works for you") as caught:
        commands.end(EndWork(3, "ann-1"))
    assert "potluck call cancel" in caught.value.fix
    for each in (commands, Commands(None, "me")):
        with pytest.raises(NotFoundError, match="No worker named eve"):
            each.end(EndWork(3, "eve"))
