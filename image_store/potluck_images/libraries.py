"""The shared libraries that an interpreter needs, and where an image's dynamic loader finds them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from potluck_images.errors import ImageBuildError
from potluck_images.tree import Tree

# Where the loader looks without a cache or a search path. The image gets the same loader, so it looks there too.
_SYSTEM_FOLDER = re.compile(r"(/usr)?/lib(64|32|/[a-z0-9_]+-linux-gnu[a-z0-9]*)?")

# "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)", or "/lib64/ld-linux-x86-64.so.2 (0x…)"
_LDD_LINE = re.compile(r"\t(\S+)(?: => (.+?))? \(0x[0-9a-f]+\)")

# Libraries that wheels expect from any Linux (PEP 600 and the manylinux policies) or that glibc loads by name.
_ASSUMED = (
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libz.so.1",
    "libresolv.so.2",
    "libutil.so.1",
    "libnss_files.so.2",
    "libnss_dns.so.2",
)

# ldd takes many files at once; a standard library has about 70 extension modules.
_LDD_TIMEOUT_S = 120

OTHER_FOLDER = "opt/python/lib"


def put_libraries(tree: Tree, binaries: Iterable[Path]) -> bool:
    """Add what `binaries` are linked with. True when some lies where only LD_LIBRARY_PATH finds it (`OTHER_FOLDER`).

    Raises `ImageBuildError` when ldd is missing or finds no C library.
    """
    found = _ldd(binaries)
    libc = next((source for name, source in found.items() if name.startswith("libc.so")), None)
    if libc is None:
        raise ImageBuildError(
            "The interpreter is not linked with glibc.",
            why="Images are made for Linux with the GNU C library.",
            fix="Use a Python that is linked dynamically with glibc, such as Debian's, pyenv's or uv's.",
        )
    others = [_put_library(tree, name, source) for name, source in (found | _assumed(libc)).items()]
    return any(others)


def _put_library(tree: Tree, name: str, source: str) -> bool:
    """`name` is the soname, or the absolute path at which programs name their loader."""
    if name.startswith("/"):
        tree.put_file(name[1:], Path(source))
        return False
    system = _SYSTEM_FOLDER.fullmatch(os.path.dirname(source)) is not None
    tree.put_file(f"{os.path.dirname(source)[1:]}/{name}" if system else f"{OTHER_FOLDER}/{name}", Path(source))
    return not system


def _assumed(libc: str) -> dict[str, str]:
    folders = [os.path.dirname(libc), "/usr" + os.path.dirname(libc).removeprefix("/usr")]
    found = {}
    for name in _ASSUMED:
        for folder in folders:
            if name not in found and os.path.exists(f"{folder}/{name}"):
                found[name] = f"{folder}/{name}"
    return found


def _ldd(binaries: Iterable[Path]) -> dict[str, str]:
    """Source path by soname or loader path. ldd runs the loader on them: they are the user's own."""
    try:
        done = subprocess.run(
            ["ldd", *map(str, binaries)],
            capture_output=True,
            text=True,
            timeout=_LDD_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageBuildError(
            "ldd cannot be run.", why=str(error), fix="Install it: on Debian it is part of libc-bin."
        ) from None
    matches = (_LDD_LINE.fullmatch(line) for line in done.stdout.splitlines())
    found = {match[1]: match[2] or match[1] for match in matches if match}
    return {name: source for name, source in found.items() if source.startswith("/")}
