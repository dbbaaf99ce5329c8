"""What a node does to run build steps; the steps themselves are tested with the image store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from potluck_images.errors import ImageBuildError
from potluck_images.process import Ended, run
from potluck_node import builder, builder_limits, debian
from potluck_node.builder import BwrapWorkshop
from potluck_node.builder_limits import Watch

SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY_UID = 54_321

# Builds an image with one command, in the folder given.
BUILD = """
import os, platform, sys
from pathlib import Path
from potluck_images.build import build
from potluck_images.definition import ImageDefinition, LocalPython, Run, Shell
from potluck_images.memory import MemoryStore
from potluck_node.builder import BwrapWorkshop
code = "import os; os.chown('/etc/hosts', 5, 5); os.unlink('/etc/group'); open('/made', 'w').write(str(os.getuid()))"
steps = (LocalPython(sys.executable, platform.python_version()), Shell(("/opt/python/bin/python3", "-c")), Run((code,)))
folder = Path(sys.argv[1])
print(os.getuid(), build(ImageDefinition(steps), MemoryStore(), folder, workshop=BwrapWorkshop()))
print([path.name for path in (folder / "tmp").iterdir()])
"""


def as_user(uid: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"] if uid else []
    # What is installed here, but not the standard library of the interpreter that runs the tests.
    installed = [path for path in sys.path if path and not path.startswith(sys.base_prefix)]
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": ":".join(installed)}
    return subprocess.run([*drop, SYSTEM_PYTHON, *arguments], env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_and_any_other_user_build_the_same_image(tmp_path_factory):
    if as_user(NOBODY_UID, "-c", "import potluck_node.builder, msgspec").returncode:
        pytest.skip("another user's Python cannot import this checkout")
    said = []
    for uid in (0, NOBODY_UID):
        # Not below pytest's own folder, which nobody else may enter.
        folder = Path(f"/tmp/potluck-test-build-{os.getpid()}-{uid}")
        folder.mkdir()
        try:
            os.chown(folder, uid, uid)
            done = as_user(uid, "-c", BUILD, str(folder))
        finally:
            shutil.rmtree(folder)
        assert done.returncode == 0, done.stderr
        (user, image), left = (line.split() for line in done.stdout.splitlines())
        assert (user, left) == (str(uid), ["[]"])
        said.append(image)
    assert said[0] == said[1]


def test_a_machine_without_the_programs_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageBuildError, match="unshare") as caught:
        BwrapWorkshop()._find()
    assert "util-linux" in caught.value.fix
    with pytest.raises(ImageBuildError, match="mmdebstrap") as caught:
        debian.command("bwrap", "bookworm", (), tmp_path, tmp_path, 0)
    assert "sudo apt install mmdebstrap" in caught.value.fix


def test_a_step_that_uses_too_much_memory_is_stopped_where_no_group_counts(monkeypatch):
    monkeypatch.setattr(builder_limits.memory, "used_mib", lambda pid: builder_limits.LIMITS.memory_mib + 1)
    with pytest.raises(ImageBuildError, match="MiB of memory"):
        Watch((), None)(1)


def test_what_an_unprivileged_mount_needs_is_said():
    error = builder._no_overlay(Ended(1, ("mount: wrong fs type", "potluck: no overlay")))
    assert "Linux 5.11" in error.fix
    assert "wrong fs type" in error.why


def test_output_is_cut_into_lines_and_never_floods():
    said = []
    code = "print('x' * 100_000); print('é' * 3, flush=True); print('last')"
    ended = run([sys.executable, "-c", code], said.append, 30)
    assert ended.status == 0
    assert ended.lines[-2:] == ("ééé", "last")
    assert max(map(len, said)) <= 4 << 10
    assert "".join(said).count("x") == 100_000


def test_a_program_ends_with_what_cancels_it():
    def say(line):
        if line:
            raise KeyboardInterrupt

    code = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, "-c", code], say, 30)
    with pytest.raises(ImageBuildError, match="stopped after 1 s"):
        run([sys.executable, "-c", code], lambda line: None, 1)
