"""OCI layers, from the bottom up, merged into one tree in memory; whiteouts take away what lies below them.

Nothing here touches a disk: a name is only ever a key, so no link can redirect a write. Source of the rules: OCI image
spec 1.1, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from potluck_images.errors import ImageError
from potluck_images.manifest import DEPTH_MAX, check_target
from potluck_images.oci_tar import Entry
from potluck_images.oci_words import bad
from potluck_images.tree import Folder, HostFile, Link, Tree

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# Aufs kept its own notes under such names; they mean nothing elsewhere.
_AUFS = ".wh..wh."
# As Linux follows them.
LINKS_MAX = 40


@dataclass(slots=True)
class _Leaf:
    node: HostFile | Link
    layer: int


@dataclass(slots=True)
class _Dir:
    """`layer` is the last one that named it."""

    layer: int
    below: dict[str, _Dir | _Leaf] = field(default_factory=dict)


class Layers:
    """Add layers from the bottom up, then take the `tree`. Raises `ImageError` for what no image may hold."""

    def __init__(self) -> None:
        self._root = _Dir(0)
        self._layer = 0

    def add(self, entries: Iterable[Entry]) -> None:
        self._layer += 1
        for entry in entries:
            parent, _, name = entry.path.rpartition("/")
            if name.startswith(_AUFS) and name != _OPAQUE:
                continue
            if name.startswith(_WHITEOUT):
                self._take_away(parent, name)
            else:
                self._put(self._folder(parent), name, entry)

    def _put(self, folder: _Dir, name: str, entry: Entry) -> None:
        there = folder.below.get(name)
        if entry.kind == "dir":
            if isinstance(there, _Dir):
                there.layer = self._layer
            else:
                folder.below[name] = _Dir(self._layer)
        elif entry.kind == "hard":
            folder.below[name] = _Leaf(self._hard(entry), self._layer)
        elif entry.kind == "link":
            folder.below[name] = _Leaf(Link(entry.target), self._layer)
        else:
            folder.below[name] = _Leaf(HostFile(entry.source, entry.size, entry.executable), self._layer)

    def _hard(self, entry: Entry) -> HostFile | Link:
        found = self._find(entry.target)
        if not isinstance(found, _Leaf):
            raise bad(f"the hard link /{entry.path} leads to /{entry.target}, which is no file")
        return found.node

    def _take_away(self, parent: str, name: str) -> None:
        """A whiteout hides what lower layers have, not what its own layer adds, before or after it."""
        folder = self._find(parent)
        if not isinstance(folder, _Dir):
            return
        names = list(folder.below) if name == _OPAQUE else [name.removeprefix(_WHITEOUT)]
        for each in names:
            below = folder.below.get(each)
            if below and not self._keep_own(below):
                del folder.below[each]

    def _keep_own(self, below: _Dir | _Leaf) -> bool:
        """Strip what lower layers brought; whether anything is left."""
        if isinstance(below, _Dir):
            below.below = {name: child for name, child in below.below.items() if self._keep_own(child)}
            return below.layer == self._layer or bool(below.below)
        return below.layer == self._layer

    def _folder(self, path: str) -> _Dir:
        """The folder at `path`, made if it is missing; links on the way are followed, as every runtime does."""
        real = self._real(path, make=True)
        if not isinstance(real, _Dir):
            raise bad(f"/{path} is both a file and a folder")
        return real

    def _find(self, path: str) -> _Dir | _Leaf | None:
        """What is at `path`; a link in the last place is not followed."""
        parent, _, name = path.rpartition("/")
        folder = self._real(parent)
        if not name:
            return folder
        return folder.below.get(name) if isinstance(folder, _Dir) else None

    def _real(self, path: str, make: bool = False) -> _Dir | _Leaf | None:
        """What `path` leads to inside the root, links followed; above the root is the root, as in a container."""
        trail, todo, links = [self._root], _parts(path), 0
        while todo:
            name = todo.pop()
            if name == "..":
                trail = trail[:-1] or trail
                continue
            below = trail[-1].below.get(name)
            if below is None and make:
                below = trail[-1].below[name] = _Dir(self._layer)
            if isinstance(below, _Leaf) and isinstance(below.node, Link):
                links += 1
                if links > LINKS_MAX:
                    raise bad(f"/{path} leads through links in a circle")
                trail = trail[:1] if below.node.target.startswith("/") else trail
                todo += _parts(below.node.target)
            elif isinstance(below, _Dir):
                trail.append(below)
                if len(trail) > DEPTH_MAX + 1:
                    raise bad(f"/{path} nests too deep")
            else:
                return None if todo else below
        return trail[-1]

    def tree(self) -> Tree:
        """Everything, to be packed. Raises `ImageError` for links that leave the tree."""
        tree = Tree()
        self._fill(tree, self._root, "")
        return tree

    def _fill(self, tree: Tree, folder: _Dir, prefix: str) -> None:
        for name, below in folder.below.items():
            path = f"{prefix}{name}"
            if isinstance(below, _Dir):
                tree.put(path, Folder())
                self._fill(tree, below, f"{path}/")
            elif isinstance(below.node, Link):
                tree.put(path, Link(_inside(path, below.node.target)))
            else:
                tree.put(path, below.node)


def _parts(path: str) -> list[str]:
    """Reversed, to be popped one by one."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _inside(path: str, target: str) -> str:
    """A link's target in the plain form that manifests have. Raises `ImageError` when it leaves the tree."""
    base = [] if target.startswith("/") else path.split("/")[:-1]
    climbs, down = 0, list[str]()
    for part in reversed(_parts(target)):
        if part != "..":
            down.append(part)
        elif down:
            down.pop()
        else:
            climbs += 1
    if climbs > len(base) or "\0" in target:
        raise bad(f"the symbolic link /{path} → {target[:200]!r} leaves it")
    plain = "/".join([*[".."] * climbs, *down]) or "."
    plain = f"/{plain}" if target.startswith("/") else plain
    try:
        check_target(path, plain)
    except (ImageError, UnicodeEncodeError):
        raise bad(f"the symbolic link /{path} → {target[:200]!r} is not plain") from None
    return plain
