"""Opens bubblewrap sandboxes on an image made of this machine's own Python."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from tests.conformance import check_sandbox as suite
from tests.meshnode.sandbox import host_image

from potluck.errors import Error
from potluck_node.sandbox.interface import Launcher, SandboxSpec, Zygote


def opener_of(
    launcher: Launcher, folder: Path, root: Path | None = None, site: Path = Path(host_image.SITE)
) -> suite.Opener:
    """An opener for the conformance suite, and for anybody who wants a sandbox; its files lie in `folder`.

    `root` replaces the image that is made there, and `site` is where it has the packages.
    """
    binds: tuple[tuple[Path, str], ...] = ()
    if root is None:
        root, binds = host_image.build(folder)

    @asynccontextmanager
    async def open_sandbox(**fields: Any) -> AsyncIterator[Zygote]:
        more = fields.pop("more_binds", ())
        env = {"PYTHONPATH": str(site), **fields.pop("env", {})}
        fields = {"function": suite.function_spec(), "python": host_image.PYTHON, "env": env, **fields}
        spec = SandboxSpec(root=root, binds=(*binds, *more), **fields)
        failed: Error | None = None
        async with trio.open_nursery() as nursery:
            try:
                zygote = await launcher.start(nursery, spec)
            except Error as error:
                failed = error  # raised below, where no nursery wraps it
            else:
                try:
                    yield zygote
                finally:
                    await zygote.aclose()
        if failed is not None:
            raise failed

    return open_sandbox
