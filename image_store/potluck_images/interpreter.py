"""What an interpreter of this machine says about itself, and where the packages are that a sandbox's runner needs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from potluck_images.errors import ImageBuildError, PythonVersionError

# Starting an interpreter takes 20 ms; on a laden machine with a cold disk, seconds.
ASK_TIMEOUT_S = 60

# What the runner inside a sandbox imports.
RUNTIME_PACKAGES = ("potluck", "potluck_images", "msgspec", "cloudpickle")

# In a virtual environment `_base_executable` is the interpreter that it was made from.
_ABOUT = """
import json, os, platform, sys, sysconfig
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3],
    "executable": os.path.realpath(sys._base_executable),
    "stdlib": sysconfig.get_path("stdlib"),
    "platlibdir": sys.platlibdir,
    "cache_tag": sys.implementation.cache_tag,
    "machine": platform.machine(),
}))
"""

_PACKAGES = """
import importlib, json, sys
print(json.dumps([importlib.import_module(name).__path__[0] for name in sys.argv[1:]]))
"""


class Interpreter(msgspec.Struct, frozen=True):
    """`executable` is the base interpreter, `asked` the one that was named, perhaps in a virtual environment."""

    asked: str
    version: str
    executable: str
    stdlib: str
    platlibdir: str
    cache_tag: str
    machine: str

    @property
    def library(self) -> str:
        """The standard library's folder below the prefix, such as lib/python3.11."""
        return f"{self.platlibdir}/{Path(self.stdlib).name}"

    @property
    def name(self) -> str:
        """python3.11"""
        return "python" + ".".join(self.version.split(".")[:2])

    def identity(self) -> list[object]:
        """Changes when another build is installed in the same place."""
        status = os.stat(self.executable)
        return [msgspec.to_builtins(self), status.st_size, status.st_mtime_ns]


def find_interpreter(executable: str, version: str) -> Interpreter:
    """Ask `executable`. Raises `ImageBuildError` when it does not answer, `PythonVersionError` when it is another."""
    answer = _ask(executable, ["-I", "-c", _ABOUT])
    if version and answer["version"] != version:
        raise PythonVersionError(
            f"{executable} is Python {answer['version']}; the image was defined for {version}.",
            why="The interpreter was upgraded or replaced since the program started.",
            fix="Start the program again.",
        )
    return Interpreter(asked=executable, **answer)


def find_packages(python: Interpreter) -> dict[str, Path]:
    """The folders of `RUNTIME_PACKAGES` as the interpreter imports them. Raises `ImageBuildError` when it cannot."""
    try:
        folders = _ask(python.asked, ["-P", "-c", _PACKAGES, *RUNTIME_PACKAGES])
    except ImageBuildError as error:
        raise ImageBuildError(
            f"{python.asked} cannot import what Potluck's runner needs: {', '.join(RUNTIME_PACKAGES)}.",
            why=error.why,
            fix=f"Install Potluck for that interpreter: {python.asked} -m pip install potluck",
        ) from None
    return dict(zip(RUNTIME_PACKAGES, map(Path, folders), strict=True))


def _ask(executable: str, arguments: list[str]) -> Any:
    try:
        done = subprocess.run(
            [executable, *arguments], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, cwd="/", check=True
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        why = "\n".join(error.stderr.splitlines()[-5:])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        why = str(error)
    raise ImageBuildError(
        f"The interpreter {executable} does not answer.", why=why, fix="Check that it starts; choose another Python."
    )
