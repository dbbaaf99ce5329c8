"""How commits change a volume's tree: the last writer wins for each file, and nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_images import volume_tree as vt
from potluck_images.digest import digest
from potluck_images.errors import ImageError, NotFoundError
from potluck_images.manifest import ChunkRef, Dir, File, Manifest, Piece, Symlink, decode, encode


def node(path, content):
    if content is None:
        return vt.Node(Dir(path))
    data = content.encode()
    chunks = (ChunkRef(digest(data), len(data)),) if data else ()
    pieces = (Piece(0, 0, len(data)),) if data else ()
    return vt.Node(File(path, 0o644, len(data), digest(data), pieces), chunks)


def tree(**files) -> Manifest:
    """Files by path, with "__" for slashes; None makes a folder."""
    found = {}
    for key, content in files.items():
        path = key.replace("__", "/")
        vt.put(found, path, node(path, content))
    return vt.joined(found)


def shown(manifest):
    decode(encode(manifest))
    return {
        entry.path: manifest.chunks[entry.pieces[0].chunk].digest if isinstance(entry, File) and entry.pieces else None
        for entry in manifest.entries
    }


def test_two_commits_from_one_base_keep_what_only_one_of_them_changed():
    base = tree(a="1", b="1", sub__c="1")
    one, two = tree(a="2", b="1", sub__c="1"), tree(a="3", b="1", sub__c="1", sub__d="1")
    head = vt.apply(vt.apply(base, vt.delta(base, one)).tree, vt.delta(base, two)).tree
    assert shown(head) == shown(tree(a="3", b="1", sub__c="1", sub__d="1"))
    head = vt.apply(vt.apply(base, vt.delta(base, two)).tree, vt.delta(base, one)).tree
    assert shown(head) == shown(tree(a="2", b="1", sub__c="1", sub__d="1"))


def test_a_removed_folder_keeps_what_others_put_there():
    base = tree(sub__a="1", sub__deep__b="1", other="1")
    gone = vt.delta(base, tree(other="1"))
    assert shown(vt.apply(base, gone).tree) == shown(tree(other="1"))
    head = vt.apply(base, vt.delta(base, tree(sub__a="1", sub__deep__b="1", other="1", sub__new="1"))).tree
    assert shown(vt.apply(head, gone).tree) == shown(tree(other="1", sub__new="1"))


def test_an_emptied_folder_that_was_kept_stays():
    base = tree(sub__a="1")
    assert shown(vt.apply(base, vt.delta(base, tree(sub=None))).tree) == {"sub": None}


@pytest.mark.parametrize(("before", "after"), [({"a": "1"}, {"a__b": "1"}), ({"a__b": "1"}, {"a": "1"})])
def test_a_file_and_a_folder_take_each_others_place(before, after):
    applied = vt.apply(tree(**before), vt.delta(tree(**before), tree(**after)))
    assert shown(applied.tree) == shown(tree(**after))


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


@st.composite
def trees(draw):
    found = {}
    for path, content in draw(st.dictionaries(names, st.none() | st.sampled_from(["", "1", "2"]), max_size=6)).items():
        vt._put(found, path, node(path, content))
    return vt.joined(found)


@given(trees(), trees())
def test_a_delta_leads_from_one_tree_to_the_other(before, after):
    change = vt.delta(before, after)
    decode(encode(change))
    applied = vt.apply(before, change)
    assert shown(applied.tree) == shown(after)
    assert (applied.changed + applied.removed == 0) == (shown(before) == shown(after)) or shown(before) != shown(after)


@given(trees(), trees(), trees())
def test_what_one_commit_did_not_touch_is_as_the_other_left_it(base, one, two):
    first, second = vt.apply(base, vt.delta(base, one)).tree, vt.delta(base, two)
    head = vt.nodes(vt.apply(first, second).tree)
    mine = vt.nodes(second)
    for path, theirs in vt.nodes(first).items():
        touched = path in mine or path in second.removed or any(up in mine for up in vt.parents_of(path))
        if not touched and not isinstance(theirs.entry, Dir):
            assert vt.same(theirs.entry, head[path].entry if path in head else None)
    for path, ours in mine.items():
        assert vt.same(ours.entry, head[path].entry)


@given(trees())
def test_it_lies_below_one_folder_of_an_image(whole):
    layer = vt.below_top(whole)
    assert encode(vt.from_top(decode(encode(layer)))) == encode(whole)


def test_only_a_volumes_layer_is_one():
    with pytest.raises(ImageError):
        vt.from_top(tree(etc__passwd="1"))
    with pytest.raises(ImageError):
        vt.from_top(tree(volume="1"))


def test_links_stay_inside():
    for target in ("/etc/passwd", "../../x"):
        with pytest.raises(ImageError):
            vt.check_entry(Symlink("sub/a", target))
    vt.check_entry(Symlink("sub/a", "../b"))


def test_copies_and_restored_paths():
    found = vt.nodes(tree(sub__a="1", b="2"))
    vt.copy(found, "sub", "again/sub")
    assert {"again/sub/a", "sub/a", "again"} <= found.keys()
    with pytest.raises(NotFoundError):
        vt.copy(found, "missing", "x")
    with pytest.raises(ImageError):
        vt.copy(found, "sub", "sub/inner")
    with pytest.raises(ImageError):
        vt.put(found, "sub", node("sub", "1"))
    head, old = tree(a="2", b="2"), tree(a="1", c="1")
    assert shown(vt.restored(head, old, "a")) == shown(tree(a="1", b="2"))
    assert shown(vt.restored(head, old, "")) == shown(old)
    with pytest.raises(NotFoundError):
        vt.restored(head, old, "zzz")
