"""What sandboxes that mount volumes keep: folders that can be written to, or cannot, and nothing beside. As
`check_sandbox`, with a `place` where folders that the code's user owns can be made."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

import cloudpickle
from tests.conformance.check_sandbox import Opener, call, goes_on, one_worker

from potluck_node.sandbox.unprivileged import UNPRIVILEGED_UID

cloudpickle.register_pickle_by_value(sys.modules[__name__])

WRITABLE, READABLE = "/volume-a", "/volume-b"


def folder_of(place: Path, name: str, **files: str) -> Path:
    """As the node makes one, in a folder that others cannot enter."""
    folder = place / name
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    return folder


def inside_work(folder: str) -> list[str]:
    path = Path(folder)
    old = (path / "old").read_text()
    (path / "old").write_text(old + "+")
    (path / "sub").mkdir()
    (path / "sub/new").write_text("new")
    (path / "sub/new").rename(path / "moved")
    (path / "sub").rmdir()
    (path / "gone").unlink()
    os.symlink("moved", path / "link")
    (path / "run").write_text("#!/bin/sh\necho ran")
    (path / "run").chmod(0o755)
    return [*sorted(os.listdir(folder)), (path / "link").read_text()]


def inside_names(folder: str) -> list[str]:
    return os.listdir(folder)


def inside_read(path: str) -> str:
    return Path(path).read_text()


def inside_overstep(writable: str, readable: str) -> list[str]:
    """What must fail, and did not."""
    done = []

    def attempt(name: str, action: object) -> None:
        with suppress(OSError):
            action()  # type: ignore[operator]
            done.append(name)

    attempt("write to the read-only one", lambda: Path(readable, "x").write_text("1"))
    attempt("remove from the read-only one", lambda: Path(readable, "old").unlink())
    attempt("chmod in the read-only one", lambda: Path(readable, "old").chmod(0o777))
    attempt("write beside", lambda: Path("/beside").write_text("1"))
    attempt("link across", lambda: os.link(Path(readable, "old"), Path(writable, "linked")))
    attempt("make a device", lambda: os.mknod(Path(writable, "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3)))
    attempt("give away", lambda: os.chown(Path(writable, "old"), 12345, 12345))
    attempt("leave", lambda: os.listdir(Path(writable, "../../../etc/ssh")))
    return done


async def check_volumes_are_written_and_read(opener: Opener, place: Path) -> None:
    writable = folder_of(place, "a", old="old", gone="gone")
    readable = folder_of(place, "b", old="read")
    volumes = ((writable, WRITABLE, False), (readable, READABLE, True))
    async with one_worker(opener, volumes=volumes) as (zygote, worker):
        seen = (await call(worker, inside_work, WRITABLE)).value
        assert seen == ["link", "moved", "old", "run", "new"]
        assert (await call(worker, inside_overstep, WRITABLE, READABLE)).value == []
        # Both sides see what the other does, so that a volume can be committed and brought up to date.
        assert (writable / "old").read_text() == "old+"
        (readable / "late").write_text("late")
        (writable / "fresh").write_text("fresh")
        (writable / "fresh").replace(writable / "old")
        assert set((await call(worker, inside_names, READABLE)).value) == {"old", "late"}
        assert (await call(worker, inside_read, f"{WRITABLE}/old")).value == "fresh"
        await goes_on(zygote)
    assert {path.name for path in writable.iterdir()} == {"link", "moved", "old", "run"}
    assert (readable / "old").read_text() == "read"
    assert (writable / "run").stat().st_mode & 0o777 == 0o755


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
