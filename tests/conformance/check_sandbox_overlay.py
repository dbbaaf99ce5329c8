"""What a root that can be written to promises, in every sandbox, as `check_sandbox`; `folder` is where roots are."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import cloudpickle
from tests.conformance.check_sandbox import Opener, call, one_worker

from potluck_node.sandbox import overlay

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def inside_write() -> list[str]:
    for name in ("below", "gone"):
        assert os.path.exists(f"/old/{name}")
    os.makedirs("/new/folder")
    with open("/new/folder/file", "w") as file:
        file.write("new")
    with open("/old/below", "a") as file:
        file.write(" and more")
    os.remove("/old/gone")
    os.sync()
    return sorted(os.listdir("/old"))


def inside_read() -> tuple[str, list[str], bool]:
    with open("/old/below") as file:
        return file.read(), sorted(os.listdir("/old")), os.path.exists("/new")


def made(folder: Path) -> tuple[Path, Path]:
    """A tree that the sandbox is to find, and a folder for what it writes."""
    root = folder / "root"
    (root / "old").mkdir()
    for name in ("below", "gone"):
        (root / "old" / name).write_text(name)
    overlay.own_tree(root)
    place = folder / "place"
    overlay.make(place)
    return root, place


async def check_what_is_written_is_kept_apart(opener: Opener, folder: Path) -> None:
    root, place = made(folder)
    async with one_worker(opener, overlay=place) as (_, worker):
        assert (await call(worker, inside_write)).value == ["below"]
        assert (await call(worker, inside_read)).value == ("below and more", ["below"], True)
    assert (root / "old" / "below").read_text() == "below"
    assert (root / "old" / "gone").exists()
    assert not (root / "new").exists()
    upper = overlay.upper(place)
    assert (upper / "new" / "folder" / "file").read_text() == "new"
    assert (upper / "old" / "below").read_text() == "below and more"
    removed = (upper / "old" / "gone").lstat()
    assert stat.S_ISCHR(removed.st_mode)
    assert removed.st_rdev == 0


async def check_each_sees_its_own(opener: Opener, folder: Path) -> None:
    _, place = made(folder)
    other = folder / "other"
    overlay.make(other)
    async with one_worker(opener, overlay=place) as (_, first), one_worker(opener, overlay=other) as (_, second):
        await call(first, inside_write)
        assert (await call(second, inside_read)).value == ("below", ["below", "gone"], False)


CHECKS = [check_what_is_written_is_kept_apart, check_each_sees_its_own]
