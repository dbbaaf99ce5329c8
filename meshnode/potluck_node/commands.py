"""What the owner does with workers here: `potluck container exec|stop`.

A command is forked by the sandbox's zygote, and so has the same limits, filter and namespaces as the workers. What it
reads and writes goes past the node, through a connection to the client, of which the sandbox gets the other end.
"""

from __future__ import annotations

import itertools
import socket

import trio

from potluck.errors import ConnectionError, NotFoundError, RefusedError
from potluck.wire.apps import CommandEnded, EndWork, RunCommand
from potluck.wire.control import Done
from potluck_node.core.provider_events import WorkEnded
from potluck_node.provider import Provider

# At once: terminals of one person.
COMMANDS_MAX = 16


class Commands:
    """`provider` is None when this node runs nothing."""

    def __init__(self, provider: Provider | None, peer: str) -> None:
        self._provider, self._peer = provider, peer
        self._numbers = itertools.count(1)
        self._running = 0

    async def run(self, question: RunCommand) -> CommandEnded:
        """Raises `potluck.errors.Error`; cancelled, the command is killed."""
        found = self._provider.sandbox_of(question.worker) if self._provider else None
        if found is None:
            raise _no_worker(question.worker)
        caller, zygote = found
        if caller != self._peer:
            raise RefusedError(f"{question.worker} works for somebody else.", why="what it holds is not yours to see")
        if self._running >= COMMANDS_MAX or not question.command:
            raise RefusedError(f"{COMMANDS_MAX} commands run already, or none was given.", fix="End one first.")
        self._running += 1
        try:
            channel = await _connect(question.channel)
            name = f"command-{next(self._numbers)}"
            status = await zygote.execute(name, question.command, (question.rows, question.columns), channel)
        finally:
            self._running -= 1
        return CommandEnded(question.question, status)

    def end(self, question: EndWork) -> Done:
        """End what others have run there. Raises `NotFoundError`, `RefusedError`."""
        workers = self._provider.core.workers() if self._provider else iter(())
        caller = next((caller for worker, _, caller, *_ in workers if worker == question.worker), None)
        if caller is None or self._provider is None:
            raise _no_worker(question.worker)
        if caller == self._peer:
            fix = "End the call: potluck call cancel; or its app: potluck app stop."
            raise RefusedError(f"{question.worker} works for you.", fix=fix)
        self._provider.submit(WorkEnded(question.worker))
        return Done(question.question)


def _no_worker(name: str) -> NotFoundError:
    return NotFoundError(f"No worker named {name} is on this node.", fix="See `potluck container list`.")


async def _connect(path: str) -> socket.socket:
    with trio.socket.socket(socket.AF_UNIX) as channel:
        try:
            await channel.connect(path)
        except OSError as error:
            raise ConnectionError("The command's channel cannot be reached.", why=f"{path}: {error}") from None
        plain = socket.socket(fileno=channel.detach())
    # The command waits for its input as any program does.
    plain.setblocking(True)
    return plain
