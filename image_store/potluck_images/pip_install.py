"""Python packages, installed by uv into a layer at /opt/site. Wheels only: no package's code runs on this machine."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from potluck_images.bytecode import compile_tree
from potluck_images.definition import PipInstall
from potluck_images.digest import digest
from potluck_images.errors import ImageBuildError
from potluck_images.interpreter import Interpreter
from potluck_images.local_python import PREFIX, SITE, is_byte_code
from potluck_images.tree import Tree

# torch with CUDA is 3 GB; on a slow line that takes half an hour.
UV_TIMEOUT_S = 3600
# How often the caller may cancel while uv is silent.
_HEARTBEAT_S = 0.5
_ERROR_LINES = 20

# Options of `uv pip install` that choose packages. All else could run foreign code here or write somewhere else.
_OPTIONS = {
    "default-index",
    "exclude-newer",
    "extra-index-url",
    "find-links",
    "index",
    "index-strategy",
    "index-url",
    "no-deps",
    "no-index",
    "pre",
    "prerelease",
    "resolution",
    "upgrade",
}

# uv's lock and notes, and where a local wheel lay on this machine: nothing of the package, and never the same twice.
_LEFT_BY_UV = {".lock", "uv_cache.json", "direct_url.json"}

Say = Callable[[str], None]


def site_tree(python: Interpreter, step: PipInstall, site: Path, work: Path, say: Say) -> Tree:
    """Install into `site`, which may hold packages already, and return the layer with byte code.

    `say` receives lines for the user, at least twice a second; what it raises ends uv and the build.
    Raises `ImageBuildError` with uv's last lines.
    """
    _run(_command(python, step, site), site, say)
    _point_scripts_into_image(site / "bin", python)
    tree = Tree()
    tree.put_folder(SITE, site, lambda entry: is_byte_code(entry) or entry.name in _LEFT_BY_UV)
    compile_tree(tree, python, work, lambda done, total: say(f"byte code {done}/{total}"))
    return tree


def find_uv() -> str:
    """uv's path. Raises `ImageBuildError` when it is not installed."""
    beside = Path(sys.executable).with_name("uv")
    if beside.exists():
        return str(beside)
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        pass
    if found := shutil.which("uv"):
        return found
    raise ImageBuildError("uv, which installs packages, is missing.", fix="pip install 'potluck[node]'")


def _command(python: Interpreter, step: PipInstall, site: Path) -> list[str]:
    command = [find_uv(), "pip", "install", "--python", python.executable, "--target", str(site)]
    command += ["--only-binary", ":all:", "--link-mode", "copy", "--color", "never", "--no-progress"]
    for name, value in step.options:
        if name.removeprefix("--") not in _OPTIONS:
            raise ImageBuildError(
                f"pip_install has no option {name!r}.", fix=f"Use one of: {', '.join(sorted(_OPTIONS))}"
            )
        command += [f"--{name.removeprefix('--')}"] + ([value] if value else [])
    for package in step.packages:
        if package.startswith("-"):
            raise ImageBuildError(f"{package!r} is not a package.", fix="Give options by their own parameters.")
    return [*command, "--", *step.packages]


def _run(command: list[str], folder: Path, say: Say) -> None:
    """Run to the end, in `folder` where no project's own uv settings lie; `say` each line. The process never outlives
    this call."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    last: deque[str] = deque(maxlen=_ERROR_LINES)
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    try:
        _follow(lines, last, say)
        if process.wait():
            raise ImageBuildError(
                "uv could not install the packages.",
                why="\n".join(last),
                fix="Check names and versions; packages without a wheel for this Python cannot be installed.",
            )
    finally:
        process.kill()
        process.wait()
        reader.join()


def _read_lines(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout
    with process.stdout as stdout:
        for line in stdout:
            lines.put(line.rstrip())
    lines.put(None)


def _follow(lines: queue.SimpleQueue[str | None], last: deque[str], say: Say) -> None:
    deadline = time.monotonic() + UV_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=_HEARTBEAT_S)
        except queue.Empty:
            say(last[-1] if last else "resolving packages")
            continue
        if line is None:
            return
        last.append(line)
        say(line)
    raise ImageBuildError(f"uv was stopped after {UV_TIMEOUT_S} s.", why="\n".join(last))


def _point_scripts_into_image(folder: Path, python: Interpreter) -> None:
    """uv's scripts name the interpreter on this machine."""
    here, there = python.executable.encode(), f"/{PREFIX}/bin/{python.name}".encode()
    for script in folder.iterdir() if folder.is_dir() else ():
        data = script.read_bytes()
        if data.startswith(b"#!") and here in data:
            script.write_bytes(data.replace(here, there))


def inputs(step: PipInstall) -> list[object]:
    """What the result depends on: the step, and the content of wheels on this machine that it names."""
    local = [digest(Path(name).read_bytes()) for name in step.packages if os.path.isfile(name)]
    return [msgspec.msgpack.encode(step), local]
