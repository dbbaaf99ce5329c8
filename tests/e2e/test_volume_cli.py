"""`potluck volume …` on a real node."""

import json

import pytest
from tests.e2e.mesh import Mesh, run_cli


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield mesh.caller()
    finally:
        mesh.stop()


@pytest.fixture
def volume(node):
    def run(*arguments, fails=False):
        done = run_cli(node, "volume", *arguments)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_files_go_in_and_come_out(volume, tmp_path):
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/a.txt").write_text("one")
    (tmp_path / "in/sub/b.txt").write_text("two")
    assert "is made" in volume("create", "data")
    volume("put", "data", str(tmp_path / "in"))
    volume("put", "data", str(tmp_path / "in/a.txt"), "named.txt")
    assert "already" in volume("put", "data", str(tmp_path / "in/a.txt"), "named.txt", fails=True)
    volume("put", "-f", "data", str(tmp_path / "in/sub/b.txt"), "named.txt")
    listed = json.loads(volume("ls", "data", "-r", "--json"))
    assert [(each["path"], each["type"], each["size"]) for each in listed] == [
        ("in", "directory", 0), ("in/a.txt", "file", 3), ("in/sub", "directory", 0), ("in/sub/b.txt", "file", 3),
        ("named.txt", "file", 3),
    ]  # fmt: skip
    assert "in/sub" in volume("ls", "data", "in")
    assert volume("get", "data", "named.txt", "-") == "two"
    volume("get", "data", "in", str(tmp_path / "out"))
    assert (tmp_path / "out/in/sub/b.txt").read_text() == "two"
    assert "here already" in volume("get", "data", "in/a.txt", str(tmp_path / "out/in/a.txt"), fails=True)
    volume("cp", "data", "named.txt", "in")
    assert "is a folder" in volume("rm", "data", "in", fails=True)
    volume("rm", "-r", "data", "in")
    assert [each["path"] for each in json.loads(volume("ls", "data", "--json"))] == ["named.txt"]

    log = json.loads(volume("log", "data", "--json"))
    assert [each["what"] for each in log] == ["removed", "copied", "put", "put", "put"]
    assert "a program of the owner" in volume("log", "data")
    assert "version 6" in volume("restore", "data", "2", "named.txt")
    assert volume("get", "data", "named.txt", "-") == "one"
    volume("restore", "data", "3", "named.txt")
    assert volume("get", "data", "named.txt", "-") == "two"
    assert "no version 99" in volume("restore", "data", "99", fails=True)

    assert "other" in volume("rename", "data", "other")
    assert [each["name"] for each in json.loads(volume("list", "--json"))] == ["other"]
    volume("delete", "other", "-y")
    assert "There are no volumes" in volume("list")
    assert "no volume named" in volume("delete", "other", "-y", fails=True)
    volume("delete", "other", "-y", "--allow-missing")
    assert "no volume named" in volume("ls", "other", fails=True)
