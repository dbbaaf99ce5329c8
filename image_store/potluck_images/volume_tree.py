"""A volume's tree as one layer, and how commits change it. No I/O: manifests in, manifests out.

A commit is a layer: what it removes, then what it puts, on top of whatever the head is by then. So the last writer wins
for each file, and files that only another commit touched stay as that left them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from potluck_images.errors import ImageError, NotFoundError
from potluck_images.manifest import (
    FORMAT,
    ChunkRef,
    Dir,
    Entry,
    File,
    Manifest,
    Piece,
    Symlink,
    check_path,
    check_target,
    sort_key,
)

# A version of a volume is an image whose only layer has all below this folder, apart from the folders of every image.
TOP = "volume"

EMPTY = Manifest(FORMAT, (), ())


class Node(NamedTuple):
    """An entry, and the chunks that its pieces count."""

    entry: Entry
    chunks: tuple[ChunkRef, ...] = ()


Nodes = dict[str, Node]


def nodes(tree: Manifest) -> Nodes:
    """By path."""
    return {entry.path: Node(entry, tree.chunks) for entry in tree.entries}


def joined(found: Nodes, removed: Iterable[str] = ()) -> Manifest:
    """A layer of these. Raises `ImageError` when they are no tree."""
    order: dict[ChunkRef, int] = {}
    entries = tuple(_counted(found[path], path, order) for path in sorted(found, key=sort_key))
    return Manifest(FORMAT, tuple(order), entries, tuple(sorted(removed, key=sort_key)))


def _counted(node: Node, path: str, order: dict[ChunkRef, int]) -> Entry:
    """The entry at `path`, with pieces that count the chunks in the order of their first use."""
    match node.entry:
        case Dir():
            return Dir(path)
        case Symlink(_, target):
            return Symlink(path, target)
        case File(_, mode, size, digest, pieces):
            counted = tuple(
                Piece(order.setdefault(node.chunks[piece.chunk], len(order)), piece.offset, piece.size)
                for piece in pieces
            )
            return File(path, mode, size, digest, counted)


def below_top(tree: Manifest) -> Manifest:
    """The layer of an image whose folder `TOP` is this tree."""
    found = {TOP: Node(Dir(TOP)), **{f"{TOP}/{path}": node for path, node in nodes(tree).items()}}
    return joined(found, [f"{TOP}/{path}" for path in tree.removed])


def from_top(layer: Manifest) -> Manifest:
    """The reverse. Raises `ImageError` for a layer that is no volume's."""
    found = {}
    for path, node in nodes(layer).items():
        top, _, inside = path.partition("/")
        if top != TOP or (not inside and not isinstance(node.entry, Dir)):
            raise ImageError(f"/{path} is no part of a volume.")
        if inside:
            found[inside] = node
    removed = [path.removeprefix(f"{TOP}/") for path in layer.removed]
    if any(not path.startswith(f"{TOP}/") for path in layer.removed):
        raise ImageError("A volume's layer removes what is no part of it.")
    return joined(found, removed)


def same(one: Entry, other: Entry | None) -> bool:
    """Whether both show the same; how the content is cut does not matter."""
    match one, other:
        case Dir(), Dir():
            return True
        case Symlink(), Symlink():
            return one.target == other.target
        case File(), File():
            return (one.mode, one.digest) == (other.mode, other.digest)
    return False


def delta(before: Manifest, after: Manifest) -> Manifest:
    """The layer by which `after` differs: each changed or new entry, each path that is gone, and their parents."""
    old, new = nodes(before), nodes(after)
    changed = {path for path, node in new.items() if not same(node.entry, old[path].entry if path in old else None)}
    removed = sorted(old.keys() - new.keys(), key=sort_key)
    # Parents of what is gone that are still there: `apply` removes those that are not named.
    parents = {parent for path in (*changed, *removed) for parent in parents_of(path) if parent in new}
    kept = {path: new[path] for path in changed | parents}
    return joined(kept, _uncovered(removed, {path for path in kept if not isinstance(kept[path].entry, Dir)}))


def _uncovered(removed: list[str], replaced: set[str]) -> Iterator[str]:
    """As manifests want it: none that is replaced, and of those that lie in each other the deepest, which say more."""
    folders = {parent for path in removed for parent in parents_of(path)}
    for path in removed:
        if path not in folders and path not in replaced and not replaced & set(parents_of(path)):
            yield path


def parents_of(path: str) -> Iterator[str]:
    """The folders above, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


class Applied(NamedTuple):
    """`changed` and `removed` say how many entries differ from what was there before."""

    tree: Manifest
    changed: int
    removed: int


def apply(head: Manifest, change: Manifest) -> Applied:
    """The tree after a commit. Raises `ImageError` for links that leave the volume.

    A folder that a commit emptied goes with what was in it, unless others put something there meanwhile.
    """
    found, put_there = nodes(head), nodes(change)
    before = dict(found)
    for path in change.removed:
        _remove(found, path)
    for path, node in put_there.items():
        check_entry(node.entry)
        _put(found, path, node)
    emptied = {parent for path in change.removed for parent in parents_of(path)} - put_there.keys()
    _remove_empty(found, emptied)
    changed = sum(not same(node.entry, before[path].entry if path in before else None) for path, node in found.items())
    return Applied(joined(found), changed, len(before.keys() - found.keys()))


def check_entry(entry: Entry) -> None:
    """Raises `ImageError` for what may lie in an image, but not in a volume: links from the machine's root."""
    check_path(entry.path, sort_key(entry.path))
    if isinstance(entry, Symlink):
        check_target(entry.path, entry.target)
        if entry.target.startswith("/"):
            raise ImageError(f"The link {entry.path} → {entry.target:.100} leaves the volume.")


def _remove(found: Nodes, path: str) -> None:
    """What a commit saw there and removed. A folder with something left in it stays."""
    is_used = isinstance(_entry(found, path), Dir) and any(other.startswith(f"{path}/") for other in found)
    if not is_used:
        found.pop(path, None)


def _remove_empty(found: Nodes, folders: Iterable[str]) -> None:
    children = Counter(path.rpartition("/")[0] for path in found)
    for path in sorted(folders, key=lambda path: -path.count("/")):
        if isinstance(_entry(found, path), Dir) and not children[path]:
            del found[path]
            children[path.rpartition("/")[0]] -= 1


def _entry(found: Nodes, path: str) -> Entry | None:
    return found[path].entry if path in found else None


def _put(found: Nodes, path: str, node: Node) -> None:
    """In place of whatever is there, and of files where its folders are to be."""
    for parent in parents_of(path):
        if not isinstance(_entry(found, parent), Dir):
            found[parent] = Node(Dir(parent))
    if not isinstance(node.entry, Dir) and isinstance(_entry(found, path), Dir):
        remove_all(found, path)
    found[path] = node


def remove_all(found: Nodes, path: str) -> None:
    """A path and all below it."""
    for other in [other for other in found if other == path or other.startswith(f"{path}/")]:
        del found[other]


def copy(found: Nodes, source: str, target: str) -> None:
    """A file, link or folder with all in it, to exactly `target`. Raises `NotFoundError`, `ImageError`."""
    if source not in found:
        raise not_found(source)
    if f"{target}/".startswith(f"{source}/"):
        raise ImageError(f"{source} cannot be put into itself.", fix="Give another place.")
    inside = {path: node for path, node in found.items() if path == source or path.startswith(f"{source}/")}
    for path, node in inside.items():
        _put(found, f"{target}{path[len(source) :]}", node)


def put(found: Nodes, path: str, node: Node) -> None:
    """Raises `ImageError` for a file in place of a folder, and for what may not be in a volume."""
    if isinstance(_entry(found, path), Dir) and not isinstance(node.entry, Dir):
        raise ImageError(f"{path} is a folder in the volume.", fix="Give the file another path.")
    _put(found, path, node)


def restored(head: Manifest, old: Manifest, path: str) -> Manifest:
    """The head with `path` (all, if it is empty) as it was in `old`. Raises `NotFoundError` when neither has it."""
    if not path:
        return old
    found, past = nodes(head), nodes(old)
    if path not in found and path not in past:
        raise not_found(path)
    remove_all(found, path)
    for inside, node in past.items():
        if inside == path or inside.startswith(f"{path}/"):
            _put(found, inside, node)
    return joined(found)


def not_found(path: str) -> NotFoundError:
    return NotFoundError(f"The volume has no {path:.200}.", fix="See `potluck volume ls`.")
