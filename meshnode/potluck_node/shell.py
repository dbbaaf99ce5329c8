"""A shell in an image, for `potluck shell`: run by the user, with the node's store and the sandbox of build steps.

What is done in it is thrown away at its end.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from potluck import paths
from potluck.errors import Error
from potluck_images.bench import Bench
from potluck_images.config import ImageConfig
from potluck_images.disk import DiskStore
from potluck_images.image import get_config
from potluck_images.materialise import materialise
from potluck_node.builder import BwrapWorkshop
from potluck_node.store_errors import own_errors

_SHELLS = ("/bin/bash", "/bin/sh")


def open_shell(home: Path, image: str) -> int:
    """Returns the shell's exit status. Raises `potluck.errors.Error`, when the image is not here for example."""
    with own_errors():
        store = DiskStore(home / "store")
        try:
            return _talk(store, image, home / "build")
        finally:
            store.close()


def _talk(store: DiskStore, image: str, folder: Path) -> int:
    config = get_config(store, image)
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    work = tempfile.TemporaryDirectory(dir=folder / "tmp", ignore_cleanup_errors=True)
    with work as place, materialise(store, image, folder / "trees") as root:
        workshop = BwrapWorkshop()
        bench = Bench(workshop, root, Path(place), dict(config.env), config.workdir)
        return workshop.talk(bench.command((shell_of(root, config),), network=True))


def shell_of(root: Path, config: ImageConfig) -> str:
    """What the image has; its Python when it has no shell."""
    found = [name for name in _SHELLS if (root / name[1:]).exists()]
    return (found or [config.python or _SHELLS[-1]])[0]


def main() -> int:
    """`python -m potluck_node.shell IMAGE`."""
    try:
        return open_shell(paths.home(), sys.argv[1])
    except Error as error:
        print(error, file=sys.stderr)  # noqa: T201 - the user's terminal
        return 1


if __name__ == "__main__":
    sys.exit(main())
