"""Where a user's nodes are: the first, and one for each further mesh."""

import pytest

from potluck import paths
from potluck.errors import InvalidError


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    for name in ("POTLUCK_HOME", "POTLUCK_ON", "POTLUCK_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_a_further_mesh_has_a_data_folder_and_a_socket_of_its_own(plain, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(plain / "run"))
    first, socket = paths.home(), paths.socket_path()
    monkeypatch.setenv("POTLUCK_ON", "vision")
    assert paths.home() == first / "meshes" / "vision"
    assert paths.socket_path() == socket.with_name("vision.sock")
    assert paths.socket_path(on="") == socket
    assert paths.shared_folder(paths.home()) == paths.shared_folder(first)


def test_further_meshes_are_listed(plain):
    assert paths.further() == ()
    for name in ("vision", "audio"):
        paths.home_of(name).mkdir(parents=True)
    assert paths.further() == ("audio", "vision")


@pytest.mark.parametrize("name", ["../other", "a/b", "", "x" * 33, ".hidden"])
def test_a_name_cannot_lead_out_of_the_folder(name):
    with pytest.raises(InvalidError, match="not a name"):
        paths.home_of(name)


def test_a_node_that_systemd_runs_is_found_at_its_data_folder(plain, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(plain / "run"))
    paths.home().mkdir(parents=True)
    beside = paths.home() / "node.sock"
    assert paths.socket_path() != beside
    beside.touch()
    assert paths.socket_path() == beside
