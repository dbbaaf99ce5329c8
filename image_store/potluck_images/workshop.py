"""The seam to who runs build steps: a node does, in its sandboxes. The image store itself never runs foreign code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from potluck_images.process import Ended, Say


@dataclass(frozen=True)
class StepCommand:
    """One command on top of an image, as its root user.

    `root` is the tree of the layers below, which stays as it is: what the command writes, and what it removes, shows in
    the folder `upper` in the form of overlayfs(5). `upper` and `scratch` (the command's /tmp) exist and lie in one
    folder with room for more. `binds` are shown read-only: (path on this machine, path inside). `secrets` are more
    variables, which what the command prints must not show; `gpu` is what it asks for, the preferred first.
    """

    root: Path
    upper: Path
    scratch: Path
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    network: bool = False
    binds: tuple[tuple[Path, str], ...] = ()
    # 0 means as long as any step may take.
    timeout_s: float = 0
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    gpu: tuple[str, ...] = ()


class Workshop(Protocol):
    """Blocking; called in a thread. What `say` raises ends the command. Raise `ImageBuildError` where it cannot start
    or used more than it may."""

    def run(self, command: StepCommand, say: Say) -> Ended:
        """Nothing of the command runs on when this returns or raises."""
        ...

    def debian(self, suite: str, packages: tuple[str, ...], folder: Path, say: Say) -> None:
        """A minimal Debian in the empty `folder`."""
        ...
