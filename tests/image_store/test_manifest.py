from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_images import config, manifest
from potluck_images.config import ImageConfig, LayerRef
from potluck_images.digest import digest
from potluck_images.errors import ImageError
from potluck_images.manifest import ChunkRef, Dir, File, Manifest, Piece, Symlink

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
CHUNK = ChunkRef(digest(b"chunk"), 100)


def file(path, *pieces, mode=0o644, **other):
    fields = {"size": sum(piece.size for piece in pieces), "digest": digest(path.encode()), "pieces": pieces} | other
    return File(path, mode, **fields)


@st.composite
def manifests(draw):
    """Valid ones: a nested dict of folders, files and links, and chunks in the order of use."""
    tree = st.recursive(st.sampled_from(["file", "link"]), lambda below: st.dictionaries(NAMES, below, max_size=4))
    entries, order = [], {}

    def walk(prefix, folder, depth):
        for name in sorted(folder):
            path, below = prefix + name, folder[name]
            if isinstance(below, dict):
                entries.append(Dir(path))
                walk(f"{path}/", below, depth + 1)
            elif below == "link":
                up = "../" * draw(st.integers(0, depth))
                entries.append(Symlink(path, draw(st.sampled_from([up + "x", "/etc/x", up + "a/b"]))))
            else:
                parts = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 50)), max_size=3))
                pieces = [Piece(order.setdefault(number, len(order)), at, size) for number, at, size in parts]
                entries.append(file(path, *pieces, mode=draw(st.sampled_from([0o644, 0o755]))))

    walk("", draw(st.dictionaries(NAMES, tree, max_size=5)), 0)
    chunks = tuple(ChunkRef(digest(b"%d" % number), 100) for number in order)
    replaced = {entry.path for entry in entries if not isinstance(entry, Dir)}
    gone = {entry.path for entry in entries if isinstance(entry, Dir)} | draw(st.sets(NAMES, max_size=3))
    removed = draw(st.lists(st.sampled_from(sorted(gone - replaced)), unique=True)) if gone - replaced else []
    removed = [path for path in removed if not any(path.startswith(f"{other}/") for other in removed)]
    return Manifest(manifest.FORMAT, chunks, tuple(entries), tuple(sorted(removed, key=manifest.sort_key)))


@given(manifests())
def test_roundtrip(layer):
    data = manifest.encode(layer)
    assert manifest.decode(data) == layer
    assert manifest.encode(manifest.decode(data)) == data


@given(st.binary(max_size=300))
def test_any_bytes_raise_one_error(data):
    for decode in (manifest.decode, config.decode):
        with pytest.raises(ImageError):
            decode(data)


@given(manifests(), st.data())
def test_any_change_is_refused_or_another_valid_manifest(layer, data):
    encoded = bytearray(manifest.encode(layer))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        again = manifest.decode(bytes(encoded))
    except ImageError:
        return
    assert manifest.encode(again) == encoded
    assert again != layer


WHOLE = Piece(0, 0, 100)
BAD = {
    "dotdot": [Dir("..")],
    "dotdot below": [Dir("a"), Dir("a/..")],
    "dot": [Dir(".")],
    "absolute": [file("/etc")],
    "empty": [file("")],
    "empty part": [Dir("a"), file("a//b")],
    "trailing slash": [Dir("a/")],
    "nul": [file("a\0b")],
    "long name": [file("x" * 256)],
    "too deep": [Dir("/".join("x" * depth)) for depth in range(1, 102)],
    "twice": [file("a"), file("a")],
    "file and folder": [Dir("a"), file("a")],
    "out of order": [file("b"), file("a")],
    "no parent": [file("a/b")],
    "below a file": [file("a"), file("a/b")],
    "below a link": [Symlink("a", "/etc"), file("a/b")],
    "setuid": [file("a", mode=0o4755)],
    "group writable": [file("a", mode=0o664)],
    "link up": [Symlink("a", "../x")],
    "link up below": [Dir("a"), Symlink("a/b", "../../x")],
    "link up by detour": [Dir("a"), Symlink("a/b", "c/../../x")],
    "absolute link up": [Symlink("a", "/../x")],
    "empty link": [Symlink("a", "")],
    "nul in link": [Symlink("a", "b\0")],
    "beyond chunks": [file("a", Piece(1, 0, 1))],
    "beyond the chunk": [file("a", Piece(0, 60, 50))],
    "size is not the pieces'": [file("a", WHOLE, size=99)],
    "size without pieces": [file("a", size=7)],
    "too large": [file("a", size=manifest.LAYER_BYTES_MAX + 1)],
    "negative offset": [file("a", Piece(0, -1, 5))],
}


def _raw(entries, chunks=()):
    return msgspec.msgpack.encode(Manifest(manifest.FORMAT, tuple(chunks), tuple(entries)))


@pytest.mark.parametrize("entries", BAD.values(), ids=BAD.keys())
def test_hostile_trees_are_refused(entries):
    used = any(isinstance(entry, File) and entry.pieces for entry in entries)
    with pytest.raises(ImageError):
        manifest.decode(_raw(entries, [CHUNK] if used else []))


def test_good_trees_are_accepted():
    good = [
        Dir("a"),
        file("a/b", WHOLE, mode=0o755),
        Symlink("a/c", "../x"),
        Symlink("l", "/etc/x"),
        Symlink("m", "a/b"),
    ]
    assert manifest.decode(_raw(good, [CHUNK])).size == 100


def test_unknown_kinds_formats_and_chunk_lists_are_refused():
    other = ChunkRef(digest(b"other"), 100)
    device = msgspec.msgpack.encode([1, [], [["c", "null", 0o644]], []])
    newer = msgspec.msgpack.encode([2, [], [], []])
    shorter = msgspec.msgpack.encode([1, [], []])
    extra = msgspec.msgpack.encode([1, [], [], [], []])
    unused = _raw([file("a", WHOLE)], [CHUNK, other])
    disordered = _raw([file("a", Piece(1, 0, 1)), file("b", WHOLE)], [CHUNK, other])
    doubled = _raw([file("a", WHOLE, Piece(1, 0, 1))], [CHUNK, CHUNK])
    long_number = manifest.encode(Manifest(1, (), ())).replace(b"\x01", b"\xcc\x01", 1)
    for data in (device, newer, shorter, extra, unused, disordered, doubled, long_number):
        with pytest.raises(ImageError):
            manifest.decode(data)


@pytest.mark.parametrize(
    "removed",
    [("/a",), ("..",), ("a/../b",), ("",), ("b", "a"), ("a", "a"), ("a", "a/b"), ("f",), ("f/below",), ("a\0",)],
)
def test_bad_removals_are_refused(removed):
    layer = Manifest(manifest.FORMAT, (), (file("f"),), removed)
    with pytest.raises(ImageError):
        manifest.decode(msgspec.msgpack.encode(layer))


def test_config_roundtrip_and_id():
    layer = LayerRef("ab" * 32, (digest(b"x"),))
    image = ImageConfig((layer,), (("A", "1"), ("B", "2")), "/app", "/opt/python/bin/python3", "3.11.7", "x86_64")
    data = config.encode(image)
    assert config.decode(data) == image
    assert image.image == digest(data).hex()


@pytest.mark.parametrize(
    "image",
    [
        ImageConfig((LayerRef("AB" * 32, ()),)),
        ImageConfig((LayerRef("ab", ()),)),
        ImageConfig((LayerRef("ab" * 32, ()),) * 65),
        ImageConfig((), (("B", ""), ("A", ""))),
        ImageConfig((), (("A", ""), ("A", ""))),
        ImageConfig((), (("A=B", ""),)),
        ImageConfig((), (("A", "\0"),)),
        ImageConfig((), workdir="app"),
        ImageConfig((), workdir="/app/../.."),
        ImageConfig((), python="/opt//python"),
        ImageConfig((), format=2),
        ImageConfig((), (("A", "x" * config.CONFIG_BYTES_MAX),)),
    ],
)
def test_bad_configs_are_refused(image):
    with pytest.raises(ImageError):
        config.decode(msgspec.msgpack.encode(image))
    with pytest.raises(ImageError):
        config.encode(image)
