"""A sandbox in which somebody looks around: as a function's, with its limits, but a command instead of the zygote."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from potluck_node.sandbox.box import Box
from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.interface import SandboxSpec

_BOOT = (
    "import sys; sys.path.insert(0, '/run/potluck'); from potluck_runner.terminal import main; "
    "sys.path.remove('/run/potluck'); main()"
)


class ShellLauncher(BwrapLauncher):
    """Starts `command`, on a terminal of `size` (rows, columns) that is made inside; (0, 0) is for none.

    Raises `SandboxError` when this machine cannot do it.
    """

    def __init__(self, command: Sequence[str], size: tuple[int, int]) -> None:
        super().__init__()
        self._words = [*map(str, size), *command]

    async def run(self, spec: SandboxSpec, theirs: socket.socket) -> Box:
        """What is typed and shown goes through the socket. Whoever calls this has to `destroy` the box."""
        return await self._start_box(spec, theirs)

    def _inside(
        self, spec: SandboxSpec, binds: list[tuple[Path, str]], files: contextlib.ExitStack
    ) -> tuple[list[str], list[str], list[int]]:
        options, _, handed = super()._inside(spec, binds, files)
        return options, [spec.python, "-c", _BOOT, *self._words], handed
