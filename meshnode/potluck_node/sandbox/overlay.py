"""A root that can be written to: an overlay on top of a tree that nobody can change.

Mounted by the unprivileged user, in a user namespace of its own (Linux 5.11); what is written stays in the folder
`upper`. So the tree below must belong to that user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from potluck_node.sandbox.unprivileged import DROP, UNPRIVILEGED_UID, Stage

# Run as root of a new user and mount namespace: arguments are the tree below, the work folder, and the next command.
# Relative names, since commas and colons mean something in mount options.
_SCRIPT = """
folders=lowerdir=lower,upperdir=upper,workdir=work
cd "$2" && mount --rbind "$1" lower && mount -t overlay overlay -o "userxattr,$folders" merged ||
  { echo "potluck: no overlay" >&2; exit 1; }
shift 2
exec "$@"
"""
FAILED = "potluck: no overlay"
_FOLDERS = ("lower", "upper", "work", "merged")

# How long the kernel may take for a trial mount, seconds.
TRIAL_TIMEOUT_S = 10.0


def make(place: Path) -> None:
    """The folders of one overlay, owned by who the code is on this machine, where they are not there yet."""
    for path in (place, *(place / name for name in _FOLDERS)):
        path.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(path, UNPRIVILEGED_UID, UNPRIVILEGED_UID)


def command(root: Path, place: Path) -> list[str]:
    """What to put before a command that is to find, at `place`/merged, `root` with what is written to it."""
    return ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", _SCRIPT, "sh", str(root), str(place)]


def merged(place: Path) -> Path:
    return place / "merged"


def upper(place: Path) -> Path:
    """What was written. Its content is the code's: links may lead anywhere."""
    return place / "upper"


def own_tree(root: Path) -> None:
    """Have a tree, to whose files no other tree links, belong to the code's user."""
    if os.geteuid() == 0 and root.stat().st_uid != UNPRIVILEGED_UID:
        owner = f"{UNPRIVILEGED_UID}:{UNPRIVILEGED_UID}"
        words = ["chown", "--recursive", "--no-dereference", owner, str(root)]
        subprocess.run(words, check=True, capture_output=True)


def trial(folder: Path) -> str:
    """Mounts one below `folder`; returns why that cannot be done here, or ""."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        make(place)
        (place / "below").mkdir(mode=0o755)
        own_tree(place / "below")
        moved, (seen, _) = _seen(place)
        words = [*_mounts(moved), *(DROP if os.geteuid() == 0 else ()), *command(seen / "below", seen), "true"]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False)
        return "" if ended.returncode == 0 else ended.stderr.strip() or f"exit status {ended.returncode}"
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _seen(place: Path) -> tuple[Sequence[tuple[Path, Path]], tuple[Path, str]]:
    if os.geteuid() != 0:
        return [], (place, "")
    moved, (reachable,) = Stage().prepare([(place, "")])
    return moved, reachable


def _mounts(moved: Sequence[tuple[Path, Path]]) -> list[str]:
    if not moved:
        return []
    (pair,) = moved
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, "sh", *map(str, pair)]
