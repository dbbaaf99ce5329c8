"""A node of an ordinary user mounts images, too: through fusermount3, and with /dev/fuse as distributions ship it.

Everything happens in a mount namespace of its own, which takes all mounts along when its processes end.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.image_store.lazy_mounts import mounts, needs_fuse

ROOT = Path(__file__).resolve().parents[2]
USER = "nobody"

# Arguments: a folder for the user's files, a folder that others cannot enter and the one in it that they need (or
# nothing), the user, the command.
SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=1777,dev none "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
if [ -n "$2" ]; then
    mkdir "$1/needed"
    mount --bind "$3" "$1/needed"
    mount -t tmpfs -o mode=755 none "$2"
    mkdir "$3"
    mount --bind "$1/needed" "$3"
fi
user=$4 HOME=$1
shift 4
exec setpriv --reuid="$user" --regid="$user" --clear-groups env HOME="$HOME" "$@"
"""

PROGRAM = """
import os, pathlib
from tests.e2e import sample
from tests.e2e.mesh import Mesh, wait_until
from tests.image_store.lazy_mounts import mounts
assert os.geteuid() != 0
mesh = Mesh(pathlib.Path(os.environ["HOME"]))
try:
    caller, ann = mesh.caller(), mesh.provider("ann", "--lazy", "always", "--idle-s", "5")
    wait_until(lambda: caller.status().peers, "finding the provider")
    assert not ann.status().warning, ann.status().warning
    os.environ["POTLUCK_HOME"] = str(caller.home)
    with sample.app.run(show_progress=False):
        assert sample.add.remote(1, 2) == 3
        assert mounts(ann.home), ann.log.read_text()
finally:
    mesh.stop()
assert not [path for path in mounts(mesh.folder) if "lazy" in path]
print("started from a mount")
"""


def closed_folder(path: Path) -> tuple[str, str]:
    """The topmost folder above `path` that others cannot enter, and what lies in it on the way; nothing if none."""
    parts = [*reversed(path.parents), path]
    for folder, below in itertools.pairwise(parts):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return str(folder), str(below)
    return "", ""


@needs_fuse
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.skipif(not shutil.which("fusermount3"), reason="needs fusermount3 (apt install fuse3)")
def test_a_function_starts_from_a_mount_of_an_ordinary_user():
    if closed_folder(ROOT) != ("", ""):
        pytest.skip(f"other users cannot enter {ROOT}")
    closed, needed = closed_folder(Path(sys.base_prefix).resolve())
    with tempfile.TemporaryDirectory(prefix="potluck-user-") as place:
        command = ["unshare", "--mount", "sh", "-c", SETUP, "sh", place, closed, needed, str(pwd.getpwnam(USER).pw_uid)]
        program = [sys.executable, "-c", PROGRAM]
        done = subprocess.run([*command, *program], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
        assert "started from a mount" in done.stdout, done.stderr
        assert not mounts(Path(place))
