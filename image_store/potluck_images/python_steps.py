"""Steps that need no sandbox: the caller's own interpreter, and wheels for it, which nobody runs while they build."""

from __future__ import annotations

from pathlib import Path

from potluck_images import pip_install
from potluck_images.bytecode import compile_tree
from potluck_images.config import LayerRef
from potluck_images.definition import LocalPython, PipInstall
from potluck_images.digest import digest
from potluck_images.draft import Draft
from potluck_images.errors import ImageBuildError
from potluck_images.interpreter import Interpreter, find_interpreter
from potluck_images.layers import Made
from potluck_images.local_python import PREFIX, SHELL, SITE, put_shell, python_tree, runtime_tree
from potluck_images.secrecy import check_result
from potluck_images.tree import HostFile, Tree
from potluck_images.unpack import unpack


def add_local_python(draft: Draft, step: LocalPython) -> None:
    """Raises `ImageBuildError`, `PythonVersionError`."""
    if draft.python:
        raise ImageBuildError("The image has two Pythons.", fix="Keep one LocalPython step, the first.")
    draft.progress("python", f"Python {step.version}")
    draft.python = python = find_interpreter(step.executable, step.version)
    key = [python.identity(), digest(SHELL.read_bytes()) if SHELL.is_file() else ""]
    base = draft.cache.get("python", key, lambda work: _python(draft, python, work))
    draft.push(base.ref)
    add_runtime(draft, python)
    draft.set_env(dict(base.env) | dict(draft.config.env))
    draft.change(python=f"/{PREFIX}/bin/python3", python_version=python.version, machine=python.machine)


def _python(draft: Draft, python: Interpreter, work: Path) -> Made:
    tree, env = python_tree(python, work, lambda done, total: _say_compiled(draft, done, total))
    put_shell(tree)
    return Made(tree, env)


def add_runtime(draft: Draft, python: Interpreter) -> None:
    """What user code imports of Potluck, for images with this version of Python."""
    tree = runtime_tree(python)
    key = [python.cache_tag, python.version, _content(tree)]
    draft.runtime = draft.cache.get("runtime", key, lambda work: _compiled(draft, tree, python, work)).ref


def _compiled(draft: Draft, tree: Tree, python: Interpreter, work: Path) -> Made:
    compile_tree(tree, python, work, lambda done, total: _say_compiled(draft, done, total))
    return Made(tree)


def _say_compiled(draft: Draft, done: int, total: int) -> None:
    draft.progress("python", f"byte code {done}/{total}")


def _content(tree: Tree) -> list[object]:
    """Paths and digests of a small tree's files."""
    files = [(path, node) for path, node in tree.sorted() if isinstance(node, HostFile)]
    return [[path, digest(node.source.read_bytes())] for path, node in files]


def install_wheels(draft: Draft, step: PipInstall) -> None:
    """Into one layer with all packages so far. Raises `ImageBuildError`."""
    python, below = draft.python, draft.site
    assert python
    key = [pip_install.inputs(step), python.identity(), below.layer if below else ""]
    made = draft.cache.get("pip", key, lambda work: _install(draft, python, step, below, work), step.force)
    draft.site = made.ref
    # Packages may be upgraded by a later step: its layer has all of them and takes the place of the one before.
    layers = draft.config.layers
    if below in layers:
        draft.change(layers=tuple(draft.site if layer == below else layer for layer in layers))
    else:
        draft.push(draft.site)


def _install(draft: Draft, python: Interpreter, step: PipInstall, below: LayerRef | None, work: Path) -> Made:
    root = work / "root"
    root.mkdir()
    if below:
        unpack(draft.store, below, root)
    site, byte_code = root / SITE, work / "pyc"
    site.mkdir(parents=True, exist_ok=True)
    byte_code.mkdir()
    tree = pip_install.site_tree(python, step, site, byte_code, draft.say("pip"), draft.secrets)
    check_result(tree, draft.secrets)
    return Made(tree)
