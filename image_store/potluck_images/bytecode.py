"""Byte code for images: made ahead, since their roots are read-only, by the interpreter that will load it.

The files are marked "unchecked-hash" (PEP 552), so that no time stamp matters, and name paths of the image only.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from potluck_images.errors import ImageBuildError
from potluck_images.interpreter import Interpreter
from potluck_images.tree import HostFile, Tree

# Each group has a process of its own. The groups are the same on every machine, since what a process has compiled
# before could show in its output (marshal writes down which objects are shared).
_GROUP_FILES = 64
# One group takes a second or two.
_GROUP_TIMEOUT_S = 300

_COMPILE = """
import json, py_compile, sys
for source, shown, target in json.load(sys.stdin):
    py_compile.compile(source, cfile=target, dfile=shown, quiet=2,
                       invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""

_Job = tuple[str, str, str]


def compile_tree(tree: Tree, python: Interpreter, work: Path, step: Callable[[int, int], None]) -> None:
    """Add the byte code of all modules in `tree`; files that do not compile stay as they are.

    The result is written into `work`, which must last until the tree is packed. `step` is called with (done, all)
    files.
    """
    found: list[tuple[str, _Job]] = []
    for path, node in tree.sorted():
        if isinstance(node, HostFile) and path.endswith(".py"):
            job = (str(node.source), f"/{path}", str(work / f"{len(found)}.pyc"))
            found.append((_cached_path(path, python.cache_tag), job))
    groups = [found[start : start + _GROUP_FILES] for start in range(0, len(found), _GROUP_FILES)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        runs = [pool.submit(_compile, python, [job for _, job in group]) for group in groups]
        try:
            for number, run in enumerate(runs):
                run.result()
                step(min((number + 1) * _GROUP_FILES, len(found)), len(found))
        finally:
            pool.shutdown(cancel_futures=True)
    for path, (_, _, target) in found:
        if Path(target).exists():
            tree.put_file(path, Path(target))


def _cached_path(path: str, tag: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"


def _compile(python: Interpreter, jobs: list[_Job]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONHASHSEED"] = "0"
    try:
        subprocess.run(
            [python.executable, "-S", "-s", "-P", "-c", _COMPILE],
            input=json.dumps(jobs).encode(),
            env=environment,
            cwd="/",
            timeout=_GROUP_TIMEOUT_S,
            capture_output=True,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise _failed(error.stderr.decode(errors="replace")[-1000:]) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error)) from None


def _failed(why: str) -> ImageBuildError:
    return ImageBuildError("Byte code could not be made for the image.", why=why, fix="Check the interpreter.")
