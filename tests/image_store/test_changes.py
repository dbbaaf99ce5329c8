"""What a step changed, read from a folder as overlayfs leaves it."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from potluck_images.changes import changed_tree
from potluck_images.tree import Folder, HostFile, Link


def write(root, files):
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            place.symlink_to(content)
        else:
            place.write_bytes(content)


def changes(upper, below, told=None):
    tree = changed_tree(upper, below, (told if told is not None else []).append)
    kinds = {Folder: "folder", HostFile: "file", Link: "link"}
    return {path: kinds[type(node)] for path, node in tree.sorted()}, tree


@pytest.fixture
def folders(tmp_path):
    upper, below = tmp_path / "upper", tmp_path / "below"
    upper.mkdir()
    below.mkdir()
    return upper, below


def test_what_was_written_as_it_was_is_left_out(folders):
    upper, below = folders
    write(below, {"a/same": b"x", "a/other": b"x", "a/mode": b"x", "a/link": "same", "a/moved": "same"})
    write(upper, {"a/same": b"x", "a/other": b"y", "a/mode": b"x", "a/link": "same", "a/moved": "other", "new/f": b""})
    (upper / "a/mode").chmod(0o755)
    assert changes(upper, below)[0] == {
        "a": "folder",
        "a/mode": "file",
        "a/moved": "link",
        "a/other": "file",
        "new": "folder",
        "new/f": "file",
    }
    (upper / "only").mkdir()
    (below / "only").mkdir()
    assert "only" not in changes(upper, below)[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes outside of an overlay")
def test_removals_and_replaced_folders(folders):
    upper, below = folders
    write(below, {"a/gone": b"", "b/old": b"", "b/same": b"x", "c": b""})
    write(upper, {"b/same": b"x", "c/now/folder": b""})
    (upper / "a").mkdir()
    os.mknod(upper / "a/gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(upper / "b", "user.overlay.opaque", b"y")
    found, tree = changes(upper, below)
    assert tree.removed() == ["a/gone", "b"]
    # All that an emptied folder shows must be in the layer.
    assert found["b/same"] == "file"
    assert found["c"] == "folder"


def test_what_cannot_travel_stays_behind_and_is_told(folders):
    upper, below = folders
    write(upper, {"tool": b"#!", "bad": "../../../..", "up": "x/../../y"})
    (upper / "tool").chmod(0o4755)
    os.mkfifo(upper / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(upper / "socket"))
        told: list[str] = []
        found, tree = changes(upper, below, told)
    assert found == {"bad": "link", "tool": "file", "up": "link"}
    assert dict(tree.sorted())["up"] == Link("/y")
    assert dict(tree.sorted())["bad"] == Link("/")
    assert [line.split()[0] for line in told] == ["/pipe", "/socket", "/tool"]


def test_what_a_step_made_unreadable_is_read(folders):
    upper, below = folders
    write(upper, {"secret/file": b"x"})
    (upper / "secret/file").chmod(0)
    (upper / "secret").chmod(0o100)
    assert changes(upper, below)[0] == {"secret": "folder", "secret/file": "file"}
    assert (upper / "secret/file").read_bytes() == b"x"


def test_notes_of_package_managers_and_mounted_files_are_left_out(folders):
    upper, below = folders
    notes = ["var/log/dpkg.log", "var/lib/apt/lists/x", "var/cache/ldconfig/aux-cache", "var/lib/dpkg/status-old"]
    mounted = ["etc/resolv.conf", "tmp/x", "run/x", "proc/x"]
    kept = ["var/lib/dpkg/status", "var/log/own.log", "etc/hosts", "tmpx/y"]
    write(upper, dict.fromkeys([*notes, *mounted, *kept, "etc/passwd-"], b""))
    found = changes(upper, below)[0]
    assert [path for path, kind in found.items() if kind == "file"] == sorted(kept, key=lambda path: path.split("/"))


def test_a_hostile_link_below_is_not_followed(folders, tmp_path):
    """`/a` is a link to a folder of this machine; what the step put at /a/x is not compared with what lies there."""
    upper, below = folders
    outside = tmp_path / "outside"
    write(outside, {"x": b"x"})
    (below / "a").symlink_to(outside)
    write(upper, {"a/x": b"x"})
    assert changes(upper, below)[0] == {"a": "folder", "a/x": "file"}
