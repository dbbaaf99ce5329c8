"""Volumes on a node of an ordinary user, to whom all that functions write belongs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.e2e.test_lazy_user import ROOT, SETUP, USER, closed_folder

PROGRAM = """
import os, pathlib, shutil, io
from tests.e2e import volume_sample as sample
from tests.e2e.mesh import Mesh, wait_until
assert os.geteuid() != 0
mesh = Mesh(pathlib.Path(os.environ["HOME"]))
try:
    caller, ann = mesh.caller("cas", "--trust", "mesh"), mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding the provider")
    assert not ann.status().warning, ann.status().warning
    os.environ["POTLUCK_HOME"] = str(caller.home)
    with sample.shared.batch_upload() as batch:
        for name in ("old", "gone", "moved"):
            batch.put_file(io.BytesIO(name.encode()), name)
    with sample.app.run(show_progress=False):
        assert sample.write.remote("sub-a/b", "two") == "3"
        sample.remove.remote("sub-a/b")
        if shutil.which("runsc"):
            assert sample.strictly.remote() == ["old=old+", "sub/moved=moved", "sub/new=new"]
        assert sample.look.remote()[1:] == sorted({entry.path for entry in sample.shared.listdir("/")})
        assert len(sample.misbehave.remote()) > 4
    ann.stop()
    assert not list((ann.home / "volumes/mounts").glob("*")), "mounts were left"
finally:
    mesh.stop()
print("volumes work")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.skipif(not shutil.which("fusermount3"), reason="needs what the other test of an ordinary user needs")
def test_a_node_of_an_ordinary_user_mounts_volumes():
    if closed_folder(ROOT) != ("", ""):
        pytest.skip(f"other users cannot enter {ROOT}")
    closed, needed = closed_folder(Path(sys.base_prefix).resolve())
    with tempfile.TemporaryDirectory(prefix="potluck-user-") as place:
        command = ["unshare", "--mount", "sh", "-c", SETUP, "sh", place, closed, needed, str(pwd.getpwnam(USER).pw_uid)]
        program = [sys.executable, "-c", PROGRAM]
        done = subprocess.run([*command, *program], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
        assert "volumes work" in done.stdout, done.stderr
