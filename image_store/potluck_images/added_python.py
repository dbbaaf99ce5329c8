"""The caller's own interpreter on top of a base that has none of its version."""

from __future__ import annotations

from pathlib import Path

from potluck_images.bench import PATH, Bench
from potluck_images.draft import Draft
from potluck_images.interpreter import Interpreter
from potluck_images.layers import Made
from potluck_images.local_python import PREFIX, python_tree
from potluck_images.merge import Leaf, MergedTree, find, real_path
from potluck_images.process import Say
from potluck_images.tree import Folder, Tree


def add_python(draft: Draft, python: Interpreter, say: Say) -> None:
    """The caller's own interpreter, next to what the image has; libraries that the image has stay as they are.

    Raises `ImageBuildError` when it does not start there.
    """
    below = draft.merged()
    key = [python.identity(), [layer.layer for layer in draft.config.layers]]
    layer = draft.cache.get("added python", key, lambda work: _added(draft, python, below, work, say))
    draft.push(layer.ref)
    path = f"/{PREFIX}/bin:{dict(draft.config.env).get('PATH', PATH)}"
    draft.set_env({"PATH": path} | {name: value for name, value in layer.env if name == "LD_LIBRARY_PATH"})
    draft.change(python=f"/{PREFIX}/bin/python3", python_version=python.version)
    with draft.cache.folder() as work, draft.root() as root:
        bench = Bench(draft.workshop(), root, work, dict(draft.config.env), "/")
        argv = (draft.config.python, "-c", "import ctypes, socket, sqlite3, ssl, zlib")
        bench.run(argv, lambda line: None, "Starting the added Python", network=False)


def _added(draft: Draft, python: Interpreter, below: MergedTree, work: Path, say: Say) -> Made:
    made, env = python_tree(python, work, lambda done, total: say(f"byte code {done}/{total}"))
    tree = Tree()
    for path, node in made.sorted():
        real = real_path(below, path)
        if not isinstance(node, Folder) and not isinstance(find(below, real.split("/")), Leaf):
            tree.put(real, node)
    return Made(tree, env)
