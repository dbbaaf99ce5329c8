"""Layers made to do harm are refused with a reason, and whiteouts mean what the specification says."""

from __future__ import annotations

import gzip
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.image_store.registry import hardlink, member, sha256, symlink, tar_of

from potluck_images.errors import ImageError
from potluck_images.oci_layers import Layers
from potluck_images.oci_tar import Budget, Spool, read_layer
from potluck_images.oci_words import Reference, parse_reference
from potluck_images.tree import Folder, Link, Tree


def merged(folder: Path, *tars: bytes, pack=bytes, budget: Budget | None = None) -> Tree:
    folder.mkdir(exist_ok=True)
    layers, spool, budget = Layers(), Spool(folder), budget or Budget()
    for number, tar in enumerate(tars):
        blob = folder / f"blob-{number}"
        blob.write_bytes(pack(tar))
        layers.add(read_layer(blob, spool, budget, sha256(tar)))
    return layers.tree()


def content(tree: Tree) -> dict[str, object]:
    def show(node):
        return "/" if isinstance(node, Folder) else node.target if isinstance(node, Link) else node.source.read_bytes()

    return {path: show(node) for path, node in tree.sorted()}


DEEP = "/".join("d" * 90)

EVIL = {
    "absolute": ([member("/etc/passwd", b"x")], "plain path"),
    "climbs": ([member("../../etc/passwd", b"x")], "plain path"),
    "climbs inside": ([member("a/../../b", b"x")], "plain path"),
    "climbs as folder": ([member("..", None)], "plain path"),
    "nul": ([member("x", b"", pax_headers={"path": "a\0b"})], "plain path"),
    "no utf-8": ([member("caf\udce9", b"")], "plain path"),
    "device": ([member("sda", type=tarfile.BLKTYPE)], "device"),
    "pipe": ([member("pipe", type=tarfile.FIFOTYPE)], "device"),
    "link out": ([symlink("a/out", "../../etc")], "leaves it"),
    "link out, hidden": ([symlink("out", "x/../../etc")], "leaves it"),
    "absolute link out": ([symlink("out", "/../etc")], "leaves it"),
    "hard link out": ([hardlink("shadow", "../../../etc/shadow")], "plain path"),
    "absolute hard link": ([hardlink("shadow", "/etc/shadow")], "plain path"),
    "hard link to nothing": ([hardlink("a", "b")], "no file"),
    "hard link to a folder": ([member("b", None), hardlink("a", "b")], "no file"),
    "hard link through a link": ([symlink("l", "/etc"), hardlink("a", "l/shadow")], "no file"),
    "links in a circle": ([symlink("a", "b"), symlink("b", "a"), member("a/x", b"")], "circle"),
    "file below a file": ([member("a", b""), member("a/b", b"")], "both a file and a folder"),
    "name too long": ([member("a" * 300, b"")], "plain path"),
    "too deep": ([member("/".join("d" * 120), None)], "plain path"),
    "deep through links": (
        [member(DEEP, None), symlink("l", DEEP), member(f"l/{DEEP}/file")],
        "too deep",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("members", "why"), EVIL.values(), ids=EVIL)
def test_harmful_entries_are_refused(members, why, tmp_path):
    with pytest.raises(ImageError) as caught:
        merged(tmp_path / "work", tar_of(*members))
    assert why in caught.value.why
    assert "OCI image" in caught.value.what
    assert caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_a_link_redirects_names_inside_the_image_only(tmp_path):
    """The classic: a link, then a file written through it."""
    tar = tar_of(symlink("lib", "/etc"), member("lib/passwd", b"inside"), symlink("up", "usr/.."), member("up/x", b"1"))
    assert content(merged(tmp_path, tar)) == {
        "etc": "/",
        "etc/passwd": b"inside",
        "lib": "/etc",
        "up": ".",
        "x": b"1",
    } | {"usr": "/"}


def test_devices_below_dev_are_left_out(tmp_path):
    assert content(merged(tmp_path, tar_of(member("dev/null", type=tarfile.CHRTYPE)))) == {}


def test_bombs_are_bounded(tmp_path):
    zeros = tar_of(member("zeros", bytes(5 << 20)))
    with pytest.raises(ImageError, match="larger than this node accepts"):
        merged(tmp_path / "a", zeros, pack=gzip.compress, budget=Budget(bytes_max=1 << 20))
    many = tar_of(*(member(f"{number}", b"") for number in range(100)))
    with pytest.raises(ImageError, match="more files than this node accepts"):
        merged(tmp_path / "b", many, budget=Budget(entries_max=50))
    # Zeros behind the end of the archive count too.
    with pytest.raises(ImageError, match="larger than this node accepts"):
        merged(tmp_path / "c", tar_of(member("a", b"")) + bytes(5 << 20), budget=Budget(bytes_max=1 << 20))


def test_a_sparse_file_counts_with_the_size_it_claims(tmp_path):
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 50), "GNU.sparse.name": "sparse",
    }  # fmt: skip
    info.size = 1
    with pytest.raises(ImageError, match="larger than this node accepts"):
        merged(tmp_path, tar_of((info, b"x")))


def test_long_headers_are_not_read(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with pytest.raises(ImageError, match="header of 8589934592 bytes"):
        merged(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))


def test_headers_without_end(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 512
    block = info.tobuf(tarfile.USTAR_FORMAT) + b"9 a=bcde\n".ljust(512, b"\0")
    with pytest.raises(ImageError):
        merged(tmp_path, block * 5000 + bytes(1024))


@pytest.mark.parametrize(
    "data", [b"", b"no tar at all" * 100, gzip.compress(b"no tar" * 500, mtime=0), b"\x1f\x8b\x08torn"]
)
def test_what_is_no_tar_is_refused(data, tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(data)
    with pytest.raises(ImageError, match="refused"):
        list(read_layer(blob, Spool(tmp_path), Budget(), sha256(b"something else")))


def test_another_diff_id_is_refused(tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(tar_of(member("a", b"")))
    with pytest.raises(ImageError, match="other bytes"):
        list(read_layer(blob, Spool(tmp_path), Budget(), sha256(b"x")))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_torn_and_changed_tars_are_refused_or_read(seed, tmp_path):
    rng = random.Random(seed)
    tar = bytearray(tar_of(member("a/b", b"x" * 600), symlink("l", "a"), hardlink("h", "a/b"), member("d/", None)))
    for _ in range(rng.randrange(1, 6)):
        tar[rng.randrange(0, 4096)] = rng.randrange(256)
    folder = tmp_path / str(rng.random())
    try:
        tree = merged(folder, bytes(tar[: rng.randrange(1, len(tar))]))
    except ImageError:
        return
    assert all(".." not in path.split("/") and not path.startswith("/") for path, _ in tree.sorted())


def test_whiteouts(tmp_path):
    """As in the specification: they hide lower layers, never what their own layer adds, in whatever order."""
    lower = tar_of(member("a/b/c/bar", b"1"), member("a/b/d", b"2"), member("e", b"3"), member("f/g", b"4"))
    upper = tar_of(
        member("a/b/new", b"5"), member("a/.wh.b"), member(".wh.e"), member(".wh.never-there"), member("f", None),
        member("f/.wh..wh..opq"), member("x/.wh..wh.plnk"), member("a/b/c", None),
    )  # fmt: skip
    assert content(merged(tmp_path, lower, upper)) == {
        "a": "/",
        "a/b": "/",
        "a/b/new": b"5",
        "a/b/c": "/",
        "f": "/",
    }


def test_a_file_replaces_a_folder_and_the_other_way_round(tmp_path):
    lower = tar_of(member("a/x", b"1"), member("b", b"2"), symlink("c", "a"))
    upper = tar_of(member("a", b"file"), member("b", None), member("c", None), member("c/y", b"3"))
    assert content(merged(tmp_path, lower, upper)) == {"a": b"file", "b": "/", "c": "/", "c/y": b"3"}


def test_hard_links_reach_into_lower_layers_and_share_content(tmp_path):
    lower, upper = tar_of(member("a", b"1"), symlink("s", "a")), tar_of(hardlink("b", "./a"), hardlink("t", "s"))
    assert content(merged(tmp_path, lower, upper)) == {"a": b"1", "b": b"1", "s": "a", "t": "a"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", Reference("docker.io", "library/alpine", "latest")),
        ("owner/name:1.2", Reference("docker.io", "owner/name", "1.2")),
        ("docker.io/python:3.12-slim", Reference("docker.io", "library/python", "3.12-slim")),
        ("localhost/x", Reference("localhost", "x", "latest")),
        ("ghcr.io:443/a/b/c:t", Reference("ghcr.io:443", "a/b/c", "t")),
        ("[::1]:5000/a", Reference("[::1]:5000", "a", "latest")),
        (f"a:t@sha256:{'0' * 64}", Reference("docker.io", "library/a", f"sha256:{'0' * 64}")),
    ],
)
def test_references(text, expected):
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a b", "http://x/y", "../x", "a@sha256:12", "x/../y", "a:t:u", "ho st:1/x", "a/", "/a"]
)
def test_bad_references(text):
    with pytest.raises(ImageError, match="no reference"):
        parse_reference(text)


def test_plain_http_is_for_this_machine_only():
    local = ("localhost:5000/a", "127.0.0.1/a", "127.9.9.9:80/a", "[::1]:5000/a")
    assert all(parse_reference(text).base.startswith("http://") for text in local)
    elsewhere = ("127.evil.example/a", "localhost.evil.example/a", "10.0.0.1:5000/a", "a")
    assert all(parse_reference(text).base.startswith("https://") for text in elsewhere)
