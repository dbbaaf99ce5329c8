"""`potluck up --service`: the unit that systemd gets, and what is asked of it."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from potluck.cli import service
from potluck.errors import ExecutionError, NotFoundError


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A stand-in that writes down what it was asked, and fails where a file says so."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "systemctl"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ ! -e {tmp_path}/broken ] || {{ echo no bus >&2; exit 1; }}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("POTLUCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(service, "place", lambda: tmp_path / "units" / "potluck.service")
    return tmp_path


def asked(folder):
    return [line.removeprefix("--user ") for line in (folder / "asked").read_text().splitlines()]


def test_a_unit_is_written_and_started(systemctl):
    file = service.install(["--name", "ann", "--offer"])
    assert asked(systemctl) == [
        "show --property=Version", "daemon-reload", "enable potluck.service", "restart potluck.service"
    ]  # fmt: skip
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
    assert shlex.split(lines["ExecStart"]) == [sys.executable, "-m", "potluck_node.main", "--name", "ann", "--offer"]
    assert shlex.split(lines["Environment"]) == [f"POTLUCK_HOME={systemctl / 'home'}"]
    assert lines["Delegate"] == "yes"
    service.remove()
    assert asked(systemctl)[-2:] == ["disable --now potluck.service", "daemon-reload"]
    assert not file.exists()
    with pytest.raises(NotFoundError, match="no service"):
        service.remove()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path, monkeypatch):
    monkeypatch.setenv("POTLUCK_HOME", str(tmp_path / '100% of "it"'))
    file = tmp_path / "potluck.service"
    file.write_text(service.unit(["--name", "a$b"]))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # It would say so.
    file.write_text(file.read_text().replace("Delegate=", "Delgate="))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    assert "Delgate" in done.stderr


def test_words_mean_themselves(systemctl):
    text = service.unit(["--name", 'a b"c\\d%h$HOME'])
    assert '"a b\\"c\\\\d%%h$$HOME"' in text


def test_where_systemd_does_not_run_nothing_is_written(systemctl, monkeypatch):
    (systemctl / "broken").touch()
    with pytest.raises(ExecutionError, match="does not run services"):
        service.install([])
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ExecutionError, match="does not run services"):
        service.install([])
    assert not (systemctl / "units").exists()


def test_the_unit_goes_where_the_users_manager_looks(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert service.place() == tmp_path / "systemd" / "user" / "potluck.service"
    assert "WantedBy=default.target" in service.unit([])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert service.place().parent.name == "system"


def test_a_node_for_a_further_mesh_has_a_unit_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("POTLUCK_HOME", str(tmp_path))
    monkeypatch.setenv("POTLUCK_ON", "vision")
    assert service.place().name == "potluck-vision.service"
    assert f'"POTLUCK_HOME={tmp_path}/meshes/vision"' in service.unit([])
