"""The Debian base: the release whose own Python is of the caller's version, or the newest."""

from __future__ import annotations

from pathlib import Path

from potluck_images.bench import Bench
from potluck_images.changes import changed_tree
from potluck_images.layers import Made
from potluck_images.local_python import RUNTIME, SITE
from potluck_images.process import Say
from potluck_images.workshop import Workshop

SUITES = {"3.11": "bookworm", "3.13": "trixie"}
# For other versions: the newest, since the caller's own interpreter may need a C library as new as the caller's.
NEWEST = "trixie"
PACKAGES = ("ca-certificates", "python3")
PYTHON = "/usr/bin/python3"

ENV = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": f"/{SITE}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": f"/app:/{SITE}:/{RUNTIME}",
}

# Of the machine that builds.
_THIS_MACHINE = ("etc/resolv.conf", "etc/hostname", "etc/machine-id", "var/lib/dbus/machine-id")
_VERSION = "import platform; print(platform.python_version())"


def suite(version: str) -> str | None:
    """The release whose own Python is of this "major.minor…", if there is one."""
    return SUITES.get(".".join(version.split(".")[:2]))


def make(workshop: Workshop, release: str, work: Path, say: Say) -> Made:
    """A minimal Debian with Python, whose version it is about, and its byte code. Raises `ImageBuildError`."""
    root = work / "debian"
    root.mkdir()
    workshop.debian(release, PACKAGES, root, lambda line: say(line or f"installing {release}"))
    (work / "empty").mkdir()
    tree = changed_tree(root, work / "empty", lambda text: None, lambda path: path in _THIS_MACHINE)
    (work / "step").mkdir()
    bench = Bench(workshop, root, work / "step", ENV, "/")
    bench.compile(PYTHON, say, [path for path, _ in tree.sorted()])
    for path, node in bench.tree(say).sorted():
        tree.put(path, node)
    told = bench.run((PYTHON, "-I", "-c", _VERSION), lambda line: None, "python3", network=False)
    return Made(tree, about=told.lines[-1])
