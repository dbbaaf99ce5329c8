"""`potluck doctor` on this machine, and on one where things are missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from potluck.wire.doctor import Finding
from potluck_node import doctor

POTLUCK = Path(sys.executable).with_name("potluck")


def look(home: Path, path: str = os.environ["PATH"]) -> tuple[int, dict[str, Finding]]:
    env = {**os.environ, "POTLUCK_HOME": str(home), "PATH": path}
    done = subprocess.run([POTLUCK, "doctor", "--json"], capture_output=True, env=env, check=False)
    assert done.stdout, done.stderr.decode()
    findings = msgspec.json.decode(done.stdout, type=list[Finding])
    return done.returncode, {finding.about: finding for finding in findings}


@pytest.fixture
def programs() -> Iterator[Path]:
    """A folder that everyone may enter: sandboxes are tried as another user."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def path_without(folder: Path, *programs: str) -> str:
    """A PATH with every program that this machine has but these."""
    for each in os.environ["PATH"].split(":"):
        for file in Path(each).glob("*"):
            link = folder / file.name
            if file.name not in programs and not link.is_symlink():
                link.symlink_to(file)
    return str(folder)


def test_this_machine(tmp_path: Path) -> None:
    status, found = look(tmp_path / "home")
    assert status == 0
    assert found["sandbox bwrap"].state == "good"
    assert found["user"].state == ("weak" if os.geteuid() == 0 else "good")
    assert (found["sandbox gvisor"].state == "good") == (shutil.which("runsc") is not None)
    assert found["disk"].says.endswith("home.")


@pytest.mark.parametrize(
    ("program", "about", "state", "fix"),
    [
        ("bwrap", "sandbox bwrap", "missing", "apt install bubblewrap"),
        ("runsc", "sandbox gvisor", "weak", "apt install runsc"),
        ("pasta", "network", "weak", "apt install passt"),
        ("mmdebstrap", "debian", "weak", "apt install mmdebstrap"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(
    tmp_path: Path, programs: Path, program: str, about: str, state: str, fix: str
) -> None:
    status, found = look(tmp_path / "home", path_without(programs, program))
    assert (found[about].state, status) == (state, int(program == "bwrap"))
    assert fix in found[about].fix


def test_an_old_runsc_is_refused(tmp_path: Path, programs: Path) -> None:
    path = path_without(programs, "runsc")
    (programs / "runsc").write_text("#!/bin/sh\necho runsc version 0.0~20221219.0\n")
    (programs / "runsc").chmod(0o755)
    _, found = look(tmp_path / "home", path)
    assert found["sandbox gvisor"].state == "weak"
    assert "20221219" in found["sandbox gvisor"].says


def test_it_can_be_read(tmp_path: Path) -> None:
    env = {**os.environ, "POTLUCK_HOME": str(tmp_path)}
    shown = subprocess.run([POTLUCK, "doctor"], capture_output=True, text=True, env=env, check=False).stdout
    assert "sandbox bwrap" in shown
    assert "GiB are free" in shown


def test_what_nodes_of_one_machine_tell_of_its_gpus(tmp_path: Path) -> None:
    models = {"GPU-1": "NVIDIA A10G"}
    (told,) = doctor._shared_gpus(models, None)
    assert told.state == "weak"
    assert told.fix.startswith("sudo install -d -m 1777 /run/lock")
    folder = tmp_path / "potluck-gpus"
    folder.mkdir()
    assert list(doctor._shared_gpus(models, folder)) == []
    with (folder / "1-a").open("w+") as file:
        file.write(f"{os.getpid()} GPU-1=5 GPU-9=5")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        (told,) = doctor._shared_gpus(models, folder)
    assert (told.state, f"process {os.getpid()} (user {os.getuid()})" in told.says) == ("good", True)
