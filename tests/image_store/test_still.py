from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from potluck_images.changes import changed_tree
from potluck_images.errors import ImageBuildError
from potluck_images.still import DEPTH_MAX, copy_still


def copy(source: Path, target: Path, bytes_max: int = 1 << 20, files_max: int = 100) -> list[str]:
    told: list[str] = []
    copy_still(source, target, bytes_max, files_max, told.append)
    return told


def test_the_copy_makes_the_same_layer(tmp_path: Path) -> None:
    below, upper = tmp_path / "below", tmp_path / "upper"
    for folder in (below / "kept", below / "anew", upper / "anew", upper / "empty"):
        folder.mkdir(parents=True)
    (below / "kept" / "gone").write_text("old")
    (below / "anew" / "old").write_text("old")
    (upper / "kept").mkdir()
    os.mknod(upper / "kept" / "gone", stat.S_IFCHR, 0)
    os.setxattr(upper / "anew", "user.overlay.opaque", b"y")
    (upper / "anew" / "file").write_text("new")
    (upper / "run").write_text("#!/bin/sh")
    (upper / "run").chmod(0o755)
    (upper / "link").symlink_to("run")
    assert copy(upper, tmp_path / "copy") == []

    def layer(folder: Path) -> object:
        tree = changed_tree(folder, below)
        return [(path, type(node).__name__) for path, node in tree.sorted()], sorted(tree.removed())

    assert layer(tmp_path / "copy") == layer(upper)
    assert "kept/gone" in layer(upper)[1]  # type: ignore[index]
    assert (tmp_path / "copy" / "run").stat().st_mode & 0o777 == 0o755


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "out").symlink_to(tmp_path / "secret")
    (upper / "key").symlink_to(tmp_path / "secret" / "key")
    copy(upper, tmp_path / "copy")
    assert os.readlink(tmp_path / "copy" / "out") == str(tmp_path / "secret")
    assert (tmp_path / "copy" / "key").is_symlink()


def test_what_cannot_travel_is_said(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    os.mkfifo(upper / "pipe")
    assert copy(upper, tmp_path / "copy") == ["/pipe is a device, socket or pipe and stays behind"]


def test_limits(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    for number in range(3):
        (upper / str(number)).write_bytes(b"1234")
    copy(upper, tmp_path / "all", 12, 3)
    with pytest.raises(ImageBuildError, match="too large"):
        copy(upper, tmp_path / "bytes", 11, 3)
    with pytest.raises(ImageBuildError, match="too large"):
        copy(upper, tmp_path / "files", 12, 2)
    deep = upper
    for _ in range(DEPTH_MAX + 2):
        deep /= "d"
        deep.mkdir()
    with pytest.raises(ImageBuildError, match="folders in each other"):
        copy(upper, tmp_path / "deep", 1 << 20, 1 << 20)
