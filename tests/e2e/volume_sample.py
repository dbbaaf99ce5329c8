"""Functions that share a volume."""

import os
from pathlib import Path

import potluck

app = potluck.App("voluminous")
shared = potluck.Volume.from_name("shared", create_if_missing=True)
DATA = Path("/data")


@app.function(volumes={DATA.as_posix(): shared}, timeout=60)
def write(name: str, text: str) -> str:
    (DATA / name).parent.mkdir(parents=True, exist_ok=True)
    (DATA / name).write_text(text)
    return str(os.stat(DATA / name).st_size)


@app.function(volumes={DATA.as_posix(): shared}, timeout=60)
def read() -> dict[str, str]:
    """As it is now: the worker may have been here before."""
    shared.reload()
    return {path.relative_to(DATA).as_posix(): path.read_text() for path in sorted(DATA.rglob("*")) if path.is_file()}


@app.function(volumes={DATA.as_posix(): shared}, timeout=60)
def remove(name: str) -> None:
    (DATA / name).unlink()


@app.function(volumes={DATA.as_posix(): shared}, timeout=60)
def write_and_fail() -> None:
    (DATA / "failed").write_text("written before")
    raise ValueError("on purpose")


@app.function(volumes={DATA.as_posix(): shared}, timeout=60)
def commit_and_wait(inbox: potluck.Queue, outbox: potluck.Queue) -> list[str]:
    """Commits when it is told to, and says what it sees then."""
    (DATA / "early").write_text("1")
    shared.commit()
    outbox.put("committed")
    inbox.get(timeout=60)
    before = sorted(os.listdir(DATA))
    shared.reload()
    return [*before, "|", *sorted(os.listdir(DATA))]


@app.function(volumes={DATA.as_posix(): shared.read_only()}, timeout=60)
def look() -> list[str]:
    try:
        (DATA / "x").write_text("1")
    except OSError as error:
        return [type(error).__name__, *sorted(os.listdir(DATA))]
    return ["written"]


@app.function(volumes={DATA.as_posix(): shared.with_mount_options(sub_path="sub/deep")}, timeout=60)
def in_sub(text: str) -> list[str]:
    (DATA / "inner").write_text(text)
    return sorted(os.listdir(DATA))


@app.function(volumes={DATA.as_posix(): shared}, timeout=60)
def misbehave() -> list[str]:
    """Leaves what cannot travel."""
    os.symlink("/etc/passwd", DATA / "absolute")
    os.symlink("../../etc/passwd", DATA / "upwards")
    os.mkfifo(DATA / "pipe")
    (DATA / "setuid").write_text("1")
    os.chmod(DATA / "setuid", 0o4755)
    (DATA / "plain").write_text("1")
    return sorted(os.listdir(DATA))


@app.function(timeout=60)
def without() -> list[str]:
    """Reads through the owner's node, as nothing is mounted."""
    try:
        shared.commit()
    except potluck.Error as error:
        return [type(error).__name__, *[entry.path for entry in shared.listdir("/")]]
    return []


@app.function(volumes={DATA.as_posix(): shared}, timeout=60, sandbox="gvisor")
def strictly() -> list[str]:
    """All that a mount is for, in the strict tier."""
    old = (DATA / "old").read_text()
    (DATA / "old").write_text(old + "+")
    (DATA / "gone").unlink()
    (DATA / "sub").mkdir()
    (DATA / "sub/new").write_text("new")
    os.rename(DATA / "moved", DATA / "sub/moved")
    shared.commit()
    shared.reload()
    return [f"{path.relative_to(DATA)}={path.read_text()}" for path in sorted(DATA.rglob("*")) if path.is_file()]


@app.function(volumes={DATA.as_posix(): shared.read_only()}, timeout=60, sandbox="gvisor")
def look_strictly() -> list[str]:
    try:
        (DATA / "x").write_text("1")
    except OSError as error:
        return [type(error).__name__, *sorted(os.listdir(DATA))]
    return ["written"]
