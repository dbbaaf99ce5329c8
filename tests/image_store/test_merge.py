import pytest
from tests.image_store.helpers import tree_of

from potluck_images.errors import ImageError
from potluck_images.image import get_manifest
from potluck_images.memory import MemoryStore
from potluck_images.merge import merge, real_path
from potluck_images.pack import pack


@pytest.fixture
def tree():
    store = MemoryStore()
    files = {"usr/bin/sh": b"", "bin": "usr/bin", "abs": "/usr", "a/up": "../usr", "loop": "loop2", "loop2": "loop"}
    return merge([get_manifest(store, pack(tree_of(files), store))])


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("bin/tool", "usr/bin/tool"),
        ("abs/bin/tool", "usr/bin/tool"),
        ("a/up/bin/x/y", "usr/bin/x/y"),
        ("new/folder/x", "new/folder/x"),
        ("bin", "bin"),
        ("usr/bin/sh", "usr/bin/sh"),
        ("loop", "loop"),
    ],
)
def test_links_among_the_parents_are_followed(tree, path, real):
    assert real_path(tree, path) == real


def test_circles_are_refused(tree):
    with pytest.raises(ImageError, match="circles"):
        real_path(tree, "loop/x")
