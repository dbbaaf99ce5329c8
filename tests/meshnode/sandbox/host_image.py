"""An image root made of this machine's own Python: empty folders, on which it is mounted."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import cloudpickle

# The field `python` of a spec on this image: the interpreter below any virtual environment, since that may lie in /tmp,
# which sandboxes have for themselves.
PYTHON = os.path.realpath(sys.executable)
# Where cloudpickle is mounted, which the functions of these tests need: the value of PYTHONPATH inside.
SITE = "/site"

# The system's libraries; the rest is computed from the running interpreter.
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64")
_EMPTY = ("proc", "dev", "tmp", "run", "sys", "etc", "site")


def build(folder: Path) -> tuple[Path, tuple[tuple[Path, str], ...]]:
    """Make a root below `folder`; returns it and the binds to mount on it."""
    root = folder / "root"
    wanted = {*_SYSTEM, sys.base_prefix, sysconfig.get_path("stdlib")}
    paths = sorted(Path(path) for path in wanted if os.path.isdir(path))
    top = [path for path in paths if not any(other in path.parents for other in paths)]
    for inside in [*_EMPTY, *(str(path).lstrip("/") for path in top)]:
        (root / inside).mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    site = Path(cloudpickle.__file__).parents[1]
    return root, (*((path, str(path)) for path in top), (site, SITE))
