"""`volumes=`: which volumes a function finds in its file system, and where. Imported with `potluck`."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from potluck.asking import drive
from potluck.errors import InvalidError

if TYPE_CHECKING:
    from potluck.volume import Volume
    from potluck.wire.common import VolumeMount

Mounts = tuple[tuple[str, "Volume"], ...]

# Each is a folder with its own copy and a watch over its size.
MOUNTS_MAX = 16
# What sandboxes mount over themselves, and what no program runs without.
_OURS = ("/proc", "/dev", "/sys", "/run", "/tmp")
_NEEDED = ("/", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64")


def checked_mounts(given: Any) -> Mounts:
    """By path. Raises `InvalidError`."""
    from potluck.volume import Volume

    if not given:
        return ()
    if not isinstance(given, Mapping) or len(given) > MOUNTS_MAX:
        raise InvalidError(
            f"volumes={given!r:.100} cannot be mounted.",
            fix=f'Write volumes={{"/data": volume}}, with at most {MOUNTS_MAX} of them.',
        )
    found = {}
    for place, volume in given.items():
        if not isinstance(volume, Volume):
            raise InvalidError(f"{volume!r:.100} is no volume.", fix="Use Volume.from_name(…).")
        found[_place(place)] = volume
    _check_apart(found)
    return tuple(sorted(found.items()))


def _place(given: Any) -> str:
    place = str(given) if isinstance(given, str | PurePosixPath) else ""
    normal = posixpath.normpath(place)
    if not place.startswith("/") or ".." in place.split("/") or normal.startswith("//"):
        raise InvalidError(f"{given!r:.100} is no place for a volume.", fix='Give an absolute path, such as "/data".')
    if normal in _NEEDED or f"{normal}/".startswith(tuple(f"{each}/" for each in _OURS)):
        raise InvalidError(f"No volume can be mounted at {normal}.", why="the sandbox needs what is there")
    return normal


def _check_apart(found: Mapping[str, Volume]) -> None:
    places = sorted(found)
    for one, other in itertools.pairwise(places):
        if f"{other}/".startswith(f"{one}/"):
            raise InvalidError(f"{other} lies in {one}.", fix="Mount volumes beside each other.")
    names = [volume._name or id(volume) for volume in found.values()]
    if len(set(names)) < len(names):
        raise InvalidError("A volume is mounted twice.", fix="Mount it once: it would be two copies.")


def mounted(mounts: Mounts) -> tuple[VolumeMount, ...]:
    """As the provider needs to know them: the volumes are found, or made, now. Raises `NotFoundError`."""
    from potluck.wire.common import VolumeMount

    return tuple(
        VolumeMount(place, drive(volume._id()), volume._name, volume._read_only, volume._sub_path)
        for place, volume in mounts
    )
