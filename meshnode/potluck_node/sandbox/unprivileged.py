"""A node that runs as root: its sandboxes must not be root, on the host, behind their namespaces.

The command drops to an unused user before bubblewrap makes the user namespace. That user cannot enter folders such as
/root, in which images may lie; those are mounted, in a private mount namespace, below a folder that it can enter.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from potluck.errors import SandboxError

# A user that no distribution assigns: above systemd's container range, below the signed limit
# (https://systemd.io/UIDS-GIDS).
UNPRIVILEGED_UID = 1_884_000_001

DROP = (
    "setpriv",
    f"--reuid={UNPRIVILEGED_UID}",
    f"--regid={UNPRIVILEGED_UID}",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
)

# Empty folders on which images are mounted, each seen by one sandbox only. In /run, so that a reboot removes them.
STAGE = Path("/run/potluck-sandbox")

# One root and a few bound folders.
PLACES_MAX = 32


class Stage:
    """Makes folders visible to the unprivileged user."""

    def prepare(self, binds: Sequence[tuple[Path, str]]) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
        """What to mount on which empty folder, and the binds as that user can then reach them.

        Raises `SandboxError` for what does not exist, and for a file in a closed folder: only folders can be moved.
        """
        moved: list[tuple[Path, Path]] = []
        reachable: list[tuple[Path, str]] = []
        for source, target in binds:
            if not source.exists():
                raise SandboxError(f"{source}, which a sandbox is to see as {target}, does not exist: no such file.")
            if _can_reach(source):
                reachable.append((source, target))
                continue
            place = _place(len(moved), source)
            moved.append((source, place))
            reachable.append((place, target))
        return moved, reachable


def _can_reach(path: Path) -> bool:
    """Whether everyone may enter all the folders above `path`."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def _place(number: int, source: Path) -> Path:
    if number >= PLACES_MAX or not source.is_dir():
        raise SandboxError(
            f"{source} cannot be shown to a sandbox.",
            why="Other users cannot enter a folder above it, and it is no folder itself, or there are too many.",
            fix=f"Make the folders above it readable: chmod o+x {source.parent}",
        )
    place = STAGE / str(number)
    place.mkdir(parents=True, exist_ok=True)
    os.chmod(STAGE, 0o755)
    return place
