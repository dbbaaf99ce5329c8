from hypothesis import given
from hypothesis import strategies as st

from potluck_images.image import get_manifest
from potluck_images.lazy_tree import ROOT_INODE, LazyTree
from potluck_images.memory import MemoryStore
from potluck_images.merge import merge
from potluck_images.pack import pack
from potluck_images.tree import Link, Text, Tree

CONTENTS = {"a/big": bytes(range(256)) * 2000, "a/small": b"hello", "a/empty": b"", "b/also": b"x" * 70_000}


def lazy():
    store, tree = MemoryStore(), Tree()
    for path, data in CONTENTS.items():
        tree.put(path, Text(data))
    tree.put("b/link", Link("../a/small"))
    manifest = get_manifest(store, pack(tree, store))
    return store, LazyTree(merge([manifest]))


STORE, TREE = lazy()


def at(path):
    node = TREE.node(ROOT_INODE)
    for name in path.split("/"):
        node = TREE.child(node.inode, name.encode())
    return node


def read(path, offset, size):
    spans = TREE.spans(at(path).inode, offset, size)
    return b"".join(STORE.get(span.digest)[span.offset : span.offset + span.size] for span in spans)


@given(st.sampled_from(sorted(CONTENTS)), st.integers(0, 600_000), st.integers(0, 200_000))
def test_every_read_gives_the_files_bytes(path, offset, size):
    assert read(path, offset, size) == CONTENTS[path][offset : offset + size]


def test_names_sizes_modes_and_targets():
    assert [name for name, _ in TREE.names(at("a").inode, 0)] == [b"big", b"empty", b"small"]
    assert [name for name, _ in TREE.names(at("a").inode, 2)] == [b"small"]
    assert {path: at(path).size for path in CONTENTS} == {path: len(data) for path, data in CONTENTS.items()}
    assert at("b/link").target == b"../a/small"
    assert (at("a").mode, at("a/small").mode) == (0o755, 0o444)
    assert TREE.child(ROOT_INODE, b"absent") is None
    assert TREE.child(at("a/small").inode, b"below a file") is None
    assert TREE.spans(at("a").inode, 0, 10) == []


def test_the_same_image_has_the_same_inodes():
    _, again = lazy()
    assert len(again) == len(TREE)
    assert all(again.node(number).size == TREE.node(number).size for number in range(1, len(TREE) + 1))
