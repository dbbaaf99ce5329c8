"""A shell where a function would run: its image, environment, limits and network, in a sandbox of this machine.

Run by the user for `potluck shell FILE.py::f`, with the node's store. GPUs are the node's to lend: none is here.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from potluck import paths, terminal, wire
from potluck.errors import Error
from potluck.wire import FunctionSpec
from potluck_images.disk import DiskStore
from potluck_images.image import get_config
from potluck_images.materialise import materialise
from potluck_node import config
from potluck_node.pool import PIDS_PER_WORKER, ZYGOTE_MIB
from potluck_node.sandbox.box import Box
from potluck_node.sandbox.interface import Limits, SandboxSpec
from potluck_node.sandbox.network import make_gateway
from potluck_node.sandbox.shell import ShellLauncher
from potluck_node.shell import shell_of
from potluck_node.store_errors import own_errors

READ_BYTES = 64 << 10


def open_shell(home: Path, function: FunctionSpec, words: Sequence[str]) -> int:
    """Run `words`, or a shell, and return its exit status. Raises `potluck.errors.Error`."""
    settings = config.load(home, {})
    with own_errors():
        store = DiskStore(home / "store")
        try:
            with materialise(store, function.image, home / "trees") as root:
                image = get_config(store, function.image)
                spec = SandboxSpec(root, function, image.python, image.workdir, dict(image.env), _limits(function))
                command = words or (shell_of(root, image),)
                launcher = ShellLauncher(command, terminal.size() if not words else (0, 0))
                with terminal.raw():
                    return trio.run(_talk, launcher, spec, settings.lent_network)
        finally:
            store.close()


def _limits(function: FunctionSpec) -> Limits:
    """Those of one worker."""
    need = function.resources
    return Limits(need.memory_mib + ZYGOTE_MIB, max(1000, need.cpu_milli), PIDS_PER_WORKER)


async def _talk(launcher: ShellLauncher, spec: SandboxSpec, lent: tuple[str, ...]) -> int:
    async with trio.open_nursery() as nursery:
        asked = spec.function.network
        if asked:
            place = await nursery.start(make_gateway(asked, lent, _complain).serve)
            spec = SandboxSpec(
                spec.root, spec.function, spec.python, spec.workdir, spec.env, spec.limits, network=place
            )
        ours, theirs = socket.socketpair()
        with theirs:
            box = await launcher.run(spec, theirs)
        try:
            status = await _relay(box, trio.socket.from_stdlib_socket(ours))
        finally:
            await box.destroy()
        nursery.cancel_scope.cancel()
    return status


async def _relay(box: Box, channel: trio.socket.SocketType) -> int:
    """Move keys in and output out until the command ends; returns its exit status."""
    async with trio.open_nursery() as tasks:
        for task in (box.read_log, box.watch_memory):
            tasks.start_soon(task)
        tasks.start_soon(_send_keys, channel)
        while data := await channel.recv(READ_BYTES):
            os.write(1, data)
        status = await box.wait()
        tasks.cancel_scope.cancel()
    if why := box.out_of_memory() or (box.diagnosis() if status else ""):
        _complain(why)
    return status if status >= 0 else 128 - status


async def _send_keys(channel: trio.socket.SocketType) -> None:
    while data := await _typed():
        view = memoryview(data)
        while view:
            view = view[await channel.send(view) :]
    channel.shutdown(socket.SHUT_WR)


async def _typed() -> bytes:
    """In a thread: whether standard input is a file, a pipe or a terminal."""
    return await trio.to_thread.run_sync(
        os.read, 0, READ_BYTES,
        abandon_on_cancel=True,  # type: ignore[call-arg]  # newer than the stubs
    )  # fmt: skip


def _complain(text: str) -> None:
    sys.stderr.write(f"potluck: {text}\r\n")


def main() -> int:
    """`python -m potluck_node.function_shell DESCRIPTOR [COMMAND…]`; the descriptor has the function."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        function = wire.decode(file.read(), FunctionSpec)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return open_shell(paths.home(), function, sys.argv[2:])
    except Error as error:
        print(error, file=sys.stderr)  # noqa: T201 - the user's terminal
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
