"""The base of most images: the caller's own interpreter, so that nothing is downloaded and pickles fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from potluck_images.bytecode import compile_tree
from potluck_images.interpreter import Interpreter, find_packages
from potluck_images.libraries import OTHER_FOLDER, put_libraries
from potluck_images.tree import HostFile, Link, Text, Tree

PREFIX = "opt/python"
SITE = "opt/site"
RUNTIME = "opt/potluck"
SHELL = Path("/bin/sh")

# Nothing a function needs: test suites, the editor, demos, installers, what only builds extensions, other packages.
_SKIPPED_FOLDERS = {
    "__pycache__",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "dist-packages",
}
# Tk draws on a display, which a sandbox lacks; the others are examples and the test suite's.
_SKIPPED_MODULES = ("_tkinter.", "_test", "_ctypes_test.", "_xxtestfuzz.", "xxlimited")

_FILES = {
    "etc/passwd": "root:x:0:0:root:/tmp:/sbin/nologin\n"
    "potluck:x:1000:1000:potluck:/tmp:/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/tmp:/sbin/nologin\n",
    "etc/group": "root:x:0:\npotluck:x:1000:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}

# glibc before 2.35 has no C.UTF-8 of its own.
_LOCALES = ("usr/lib/locale/C.utf8", "usr/lib/locale/C.UTF-8")

Step = Callable[[int, int], None]


def python_tree(python: Interpreter, work: Path, step: Step) -> tuple[Tree, dict[str, str]]:
    """The interpreter's layer and its environment. Byte code is written into `work`. Raises `ImageBuildError`."""
    tree = Tree()
    tree.put_file(f"{PREFIX}/bin/{python.name}", Path(python.executable))
    for name in ("python3", "python"):
        tree.put(f"{PREFIX}/bin/{name}", Link(python.name))
    tree.put_folder(f"{PREFIX}/{python.library}", Path(python.stdlib), _is_needless, follow=True)
    compile_tree(tree, python, work, step)
    needs_path = put_libraries(tree, [Path(python.executable), *_extension_modules(tree)])
    for path, text in _FILES.items():
        tree.put(path, Text(text.encode()))
    for path in _LOCALES:
        if Path("/", path).is_dir():
            tree.put_folder(path, Path("/", path), follow=True)
    return tree, _environment(needs_path)


def put_shell(tree: Tree) -> None:
    """This machine's `/bin/sh`, if there is one: `os.system` and `subprocess` start command lines with it.

    Raises `ImageBuildError`.
    """
    shell = SHELL.resolve()
    if shell.is_file():
        tree.put_file("bin/sh", shell)
        put_libraries(tree, [shell])


def runtime_tree(python: Interpreter) -> Tree:
    """What the runner inside the sandbox imports, without byte code. Raises `ImageBuildError`."""
    tree = Tree()
    for name, folder in find_packages(python).items():
        tree.put_folder(f"{RUNTIME}/{name}", folder, is_byte_code, follow=True)
    return tree


def is_byte_code(entry: os.DirEntry[str]) -> bool:
    return entry.name == "__pycache__" or entry.name.endswith(".pyc")


def _is_needless(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir():
        return entry.name in _SKIPPED_FOLDERS or entry.name.startswith("config-")
    return entry.name.endswith((".pyc", ".a", ".o")) or entry.name.startswith(_SKIPPED_MODULES)


def _extension_modules(tree: Tree) -> list[Path]:
    return [node.source for path, node in tree.sorted() if path.endswith(".so") and isinstance(node, HostFile)]


def _environment(needs_path: bool) -> dict[str, str]:
    environment = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PATH": f"/{SITE}/bin:/{PREFIX}/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHOME": f"/{PREFIX}",
        "PYTHONPATH": f"/app:/{SITE}:/{RUNTIME}",
    }
    return environment | ({"LD_LIBRARY_PATH": f"/{OTHER_FOLDER}"} if needs_path else {})
