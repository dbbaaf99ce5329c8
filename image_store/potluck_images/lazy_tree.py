"""A merged image as a file system sees it: inodes, names, and which bytes of which chunk a read needs. Pure."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, field

from potluck_images.manifest import File, Symlink
from potluck_images.merge import Leaf, MergedTree

# FUSE's own number for the root (fuse(4)).
ROOT_INODE = 1


@dataclass(frozen=True, slots=True)
class Span:
    """`size` bytes at `offset` of the chunk with this digest."""

    digest: bytes
    offset: int
    size: int


@dataclass(slots=True)
class Node:
    """A folder has `children`, a link a `target`, a file `leaf` and the offsets at which its pieces begin."""

    inode: int
    mode: int
    size: int = 0
    children: dict[bytes, int] | None = None
    target: bytes | None = None
    leaf: Leaf | None = None
    starts: list[int] = field(default_factory=list)


class LazyTree:
    """Numbers are given in sorted order, so the same image has the same inodes wherever it is mounted."""

    def __init__(self, root: MergedTree) -> None:
        self._nodes: dict[int, Node] = {}
        self._numbers = itertools.count(ROOT_INODE)
        self._add_folder(root)

    def _add_folder(self, tree: MergedTree) -> int:
        node = Node(next(self._numbers), 0o755, children={})
        self._nodes[node.inode] = node
        assert node.children is not None
        for name in sorted(tree):
            below = tree[name]
            child = self._add_leaf(below) if isinstance(below, Leaf) else self._add_folder(below)
            node.children[name.encode()] = child
        return node.inode

    def _add_leaf(self, leaf: Leaf) -> int:
        inode, entry = next(self._numbers), leaf.entry
        if isinstance(entry, Symlink):
            target = entry.target.encode()
            self._nodes[inode] = Node(inode, 0o777, len(target), target=target)
        else:
            # Read-only, as hard-linked trees are: nobody may write what others share.
            mode = 0o555 if entry.mode & 0o100 else 0o444
            self._nodes[inode] = Node(inode, mode, entry.size, leaf=leaf, starts=_starts(entry))
        return inode

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, inode: int) -> Node:
        """Raises `KeyError` for a number that was never given."""
        return self._nodes[inode]

    def child(self, folder: int, name: bytes) -> Node | None:
        """What a name in a folder is, or None."""
        children = self._nodes[folder].children
        inode = children.get(name) if children else None
        return None if inode is None else self._nodes[inode]

    def names(self, folder: int, start: int) -> list[tuple[bytes, Node]]:
        """Names in a folder from the `start`-th on, in their order."""
        children = self._nodes[folder].children or {}
        return [(name, self._nodes[inode]) for name, inode in itertools.islice(children.items(), start, None)]

    def spans(self, inode: int, offset: int, size: int) -> list[Span]:
        """Where the bytes of a read lie; fewer at the end of the file."""
        node = self._nodes[inode]
        if node.leaf is None or not isinstance(node.leaf.entry, File):
            return []
        pieces, chunks = node.leaf.entry.pieces, node.leaf.layer.chunks
        end, found = min(offset + size, node.size), list[Span]()
        number = bisect.bisect_right(node.starts, offset) - 1
        while offset < end:
            piece, skip = pieces[number], offset - node.starts[number]
            length = min(piece.size - skip, end - offset)
            found.append(Span(chunks[piece.chunk].digest, piece.offset + skip, length))
            offset, number = offset + length, number + 1
        return found


def _starts(entry: File) -> list[int]:
    sizes = [piece.size for piece in entry.pieces]
    return [0, *itertools.accumulate(sizes)][: len(sizes)]
