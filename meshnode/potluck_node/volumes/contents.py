"""What is in a volume's tree, and how operations change it. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from potluck.errors import AlreadyExistsError, InvalidError
from potluck.wire import volumes as messages
from potluck_images import volume_tree as vt
from potluck_images.errors import ImageError
from potluck_images.manifest import Dir, Entry, File, Manifest, check_path, sort_key

Operation = messages.PutFile | messages.RemovePath | messages.CopyPaths


def clean(path: str) -> str:
    """As manifests have it, "" for the root; slashes at either end do not count. Raises `InvalidError`."""
    inside = path.strip("/") if path.strip("/") != "." else ""
    if inside:
        try:
            check_path(inside, sort_key(inside))
        except ImageError:
            raise InvalidError(
                f"{path[:200]!r} is no path in a volume.", fix="Give names with single slashes between, without '..'."
            ) from None
    return inside


def listing(tree: Manifest, request: messages.ListFiles, at_us: int) -> messages.FilePage:
    """Raises `NotFoundError`."""
    path = clean(request.path)
    entries = _within(tree, path, request.recursive)
    keys = [sort_key(entry.path) for entry in entries]
    start = bisect_right(keys, sort_key(request.after)) if request.after else 0
    page = entries[start : start + messages.PAGE_FILES]
    return messages.FilePage(tuple(_facts(entry, at_us) for entry in page), start + len(page) < len(entries))


def _within(tree: Manifest, path: str, recursive: bool) -> list[Entry]:
    found = [entry for entry in tree.entries if entry.path == path]
    if path and not found:
        raise vt.not_found(path)
    if found and not isinstance(found[0], Dir):
        return found
    start = f"{path}/" if path else ""
    inside = [entry for entry in tree.entries if entry.path.startswith(start) and entry.path != path]
    return inside if recursive else [entry for entry in inside if "/" not in entry.path[len(start) :]]


def _facts(entry: Entry, at_us: int) -> messages.FileFacts:
    if isinstance(entry, File):
        return messages.FileFacts(entry.path, messages.FILE, entry.size, at_us)
    kind = messages.FOLDER if isinstance(entry, Dir) else messages.LINK
    return messages.FileFacts(entry.path, kind, 0, at_us)


def file_at(tree: Manifest, path: str) -> File:
    """Raises `NotFoundError`, `InvalidError` for what is no file."""
    inside = clean(path)
    for entry in tree.entries:
        if entry.path == inside:
            if isinstance(entry, File):
                return entry
            raise InvalidError(f"{inside} is no file.", fix="See `potluck volume ls`.")
    raise vt.not_found(inside or "/")


def pieces_at(file: File, offset: int, size: int) -> list[tuple[int, int, int]]:
    """(chunk, offset in it, bytes) of what is read from an offset."""
    found, start = [], 0
    for piece in file.pieces:
        begin, end = max(offset, start), min(offset + size, start + piece.size)
        if begin < end:
            found.append((piece.chunk, piece.offset + begin - start, end - begin))
        start += piece.size
    return found


def changed(tree: Manifest, operations: Sequence[Operation], staged: Mapping[int, vt.Node]) -> Manifest:
    """The tree after these. Raises `InvalidError`, `AlreadyExistsError`, and what `volume_tree` raises."""
    found = vt.nodes(tree)
    for operation in operations:
        match operation:
            case messages.PutFile():
                _put(found, operation, staged)
            case messages.RemovePath():
                _remove(found, operation)
            case messages.CopyPaths():
                _copy(found, operation)
    return vt.joined(found)


def _put(found: vt.Nodes, operation: messages.PutFile, staged: Mapping[int, vt.Node]) -> None:
    path = clean(operation.path)
    if not path:
        raise InvalidError("A file needs a name in the volume.")
    if path in found and not operation.force and not isinstance(found[path].entry, Dir):
        raise AlreadyExistsError(f"{path} is in the volume already.", fix="Overwrite it with force.")
    vt.put(found, path, staged[operation.file])


def _remove(found: vt.Nodes, operation: messages.RemovePath) -> None:
    path = clean(operation.path)
    if not path and operation.recursive:
        found.clear()
        return
    if path not in found:
        raise vt.not_found(path or "/")
    if isinstance(found[path].entry, Dir) and not operation.recursive:
        raise InvalidError(f"{path} is a folder.", fix="Remove it with all in it: recursive, or -r.")
    vt.remove_all(found, path)


def _copy(found: vt.Nodes, operation: messages.CopyPaths) -> None:
    target = clean(operation.target)
    into = not target or (target in found and isinstance(found[target].entry, Dir))
    if len(operation.sources) > 1 and not into:
        raise InvalidError(f"{target} is no folder, so it cannot take several files.")
    for source in map(clean, operation.sources):
        if source in found and isinstance(found[source].entry, Dir) and not operation.recursive:
            raise InvalidError(f"{source} is a folder.", fix="Copy it with all in it: recursive, or -r.")
        vt.copy(found, source, f"{target}/{source.rpartition('/')[2]}".strip("/") if into else target)
