from __future__ import annotations

import os
from pathlib import Path

import pytest

from potluck.errors import SandboxError
from potluck_node.sandbox import detect
from potluck_node.sandbox.interface import Limits


def program(folder: Path, script: str) -> None:
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def sysctl(folder: Path, name: str, value: str) -> Path:
    path = folder / "sysctl" / name
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    return folder / "sysctl"


def test_missing_program_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="sudo apt install bubblewrap"):
        detect.detect()


def test_old_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo bubblewrap 0.4.1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxError, match=r"0\.8 or newer"):
        detect.detect()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "1", "In a container"),
    ],
)
def test_forbidden_namespaces_name_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    program(tmp_path, 'test "$1" = --version && echo bubblewrap 0.9.0 && exit; echo no permission >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxError) as caught:
        detect.detect(sysctl=sysctl(tmp_path, name, value))
    assert caught.value.why == "no permission"
    assert advice in caught.value.fix


def test_this_machine() -> None:
    assert detect.detect().describe().startswith("bubblewrap 0.")


@pytest.mark.parametrize(
    ("memory", "scratch", "tmp", "shm"), [(512, 1024, 256, 128), (8192, 1024, 1024, 1024), (1, 1, 1, 1)]
)
def test_scratch_leaves_room_for_processes(memory: int, scratch: int, tmp: int, shm: int) -> None:
    limits = Limits(memory_mib=memory, scratch_mib=scratch)
    assert (limits.tmp_mib, limits.shm_mib) == (tmp, shm)
