"""`Volume`: files on the owner's node, mounted where functions run. Names and meaning are Modal's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from potluck.asking import Both, EachBoth, Steps
from potluck.errors import InvalidError
from potluck.handles import Ephemeral, Handle, Manager
from potluck.volume_upload import VolumeUpload

if TYPE_CHECKING:
    from typing import Self

    from potluck.wire.volumes import FileBlock, FilePage, Mounted, VolumeAt, VolumeHeads


class FileEntryType(IntEnum):
    """What is at a path."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3


class FileEntry(NamedTuple):
    """One entry of a volume. `size` is in bytes; `mtime` is when its version was committed, in Unix seconds."""

    path: str
    type: FileEntryType
    mtime: int
    size: int


class VolumeVersion(NamedTuple):
    """One version: `by` committed it at `at_us` (Unix microseconds), `what` says how. `changed` and `removed` count
    entries that differ from the version before; `files`, and their `bytes`, are all that there are. `signer` is the
    node that signed it."""

    version: int
    at_us: int
    by: str
    what: str
    changed: int
    removed: int
    files: int
    bytes: int
    signer: str


class VolumeCopies(NamedTuple):
    """How many other peers hold the newest version, of how many that the node's settings ask for."""

    version: int
    copies: int
    wanted: int


_KINDS = {"file": FileEntryType.FILE, "folder": FileEntryType.DIRECTORY, "link": FileEntryType.SYMLINK}


class Volume(Handle):
    """Files that functions share and that outlive them. Each commit is a version; none is lost until it is deleted.

    Mounted by `@app.function(volumes={"/data": volume})`, it can be written to like any folder. What a function wrote
    is committed when an input ends, every few seconds in between, and by `commit()`; where two changed the same file
    the later commit counts, and `potluck volume log` and `restore` have the other. All methods have `.aio` twins.
    """

    _kind = "volume"
    objects: Manager[Volume]
    rename: Both[[str, str], None]

    def __init__(self, name: str = "", object_id: str = "", create: bool = False) -> None:
        super().__init__(name, object_id, create)
        self._read_only, self._sub_path = False, ""
        self.commit = Both(self._commit)
        self.reload = Both(self._reload)
        self.listdir = Both(self._listdir)
        self.iterdir: EachBoth[..., FileEntry] = EachBoth(self._iterdir)
        self.read_file: EachBoth[..., bytes] = EachBoth(self._read_file)
        self.read_file_into_fileobj = Both(self._read_into)
        self.remove_file = Both(self._remove_file)
        self.copy_files = Both(self._copy_files)
        self.log = Both(self._log)
        self.copies = Both(self._copies)
        self.restore = Both(self._restore)

    @classmethod
    def from_name(
        cls,
        name: str,
        *,
        environment_name: str | None = None,
        create_if_missing: bool = False,
        version: int | None = None,
        create_options: object = None,
    ) -> Volume:
        """The one of this name, found (or made) when it is first used. Raises `NotFoundError` then. What else Modal
        takes here is passed over: there is one environment, and one kind of volume."""
        return cls._by_name(name, create_if_missing)

    @classmethod
    def from_id(cls, volume_id: str) -> Volume:
        """The one with this `object_id`."""
        return cls(object_id=volume_id)

    @classmethod
    def ephemeral(cls, *, environment_name: str | None = None, version: int | None = None) -> Ephemeral[Volume]:
        """`with Volume.ephemeral() as volume:` makes one without a name, which ends with the block."""
        return Ephemeral(cls)

    def with_mount_options(self, *, read_only: bool | None = None, sub_path: str | PurePosixPath | None = None) -> Self:
        """The same volume, to be mounted in another way: so that it cannot be written to, or only a folder of it,
        which is made if need be."""
        made = type(self)(self._name, self._object_id, self._create)
        made._read_only = self._read_only if read_only is None else read_only
        made._sub_path = self._sub_path if sub_path is None else str(sub_path).strip("/")
        return made

    def read_only(self) -> Self:
        """As `with_mount_options(read_only=True)`."""
        return self.with_mount_options(read_only=True)

    def batch_upload(self, force: bool = False) -> VolumeUpload:
        """`with volume.batch_upload() as batch:` puts all that `batch.put_file` and `batch.put_directory` are given, as
        one version, when the block ends. Raises `AlreadyExistsError` for files that are there, unless `force`."""
        return VolumeUpload(self._id, force)

    # Where it is mounted

    def _commit(self) -> Steps[None]:
        """Make what was written to the mount, so far, a version. In functions that mount it, alone. Raises
        `InvalidError`, or what kept the node from it."""
        from potluck.wire.volumes import CommitMount

        done: Mounted = yield CommitMount((yield from self._id()))
        assert done.version >= 0

    def _reload(self) -> Steps[None]:
        """Have the mount show the newest version, after a commit. Files that are open keep what they had."""
        from potluck.wire.volumes import ReloadMount

        done: Mounted = yield ReloadMount((yield from self._id()))
        assert done.version >= 0

    # Files

    def _listdir(self, path: str, *, recursive: bool = False) -> Steps[list[FileEntry]]:
        """What is in a folder, or with `recursive` all below it; of a file, the file. Raises `NotFoundError`."""
        page = self._iterdir(path, recursive=recursive)
        found: list[FileEntry] = []
        while (entries := (yield from page())) is not None:
            found += entries
        return found

    def _iterdir(self, path: str, *, recursive: bool = True) -> Callable[[], Steps[list[FileEntry] | None]]:
        after, more = "", True

        def page() -> Steps[list[FileEntry] | None]:
            from potluck.wire.volumes import ListFiles

            nonlocal after, more
            if not more:
                return None
            found: FilePage = yield ListFiles((yield from self._id()), path, recursive, after)
            after, more = found.files[-1].path if found.files else "", found.more
            return [
                FileEntry(each.path, _KINDS[each.kind], each.mtime_us // 1_000_000, each.size) for each in found.files
            ]

        return page

    def _read_file(self, path: str) -> Callable[[], Steps[list[bytes] | None]]:
        """The content, in pieces of some MiB. Raises `NotFoundError`."""
        offset, size = 0, -1

        def page() -> Steps[list[bytes] | None]:
            from potluck.wire.volumes import ReadFile

            nonlocal offset, size
            if size >= 0 and offset >= size:
                return None
            found: FileBlock = yield ReadFile((yield from self._id()), path, offset)
            offset, size = offset + len(found.data), found.size
            return [found.data]

        return page

    def _read_into(self, path: str, fileobj: IO[bytes], progress_cb: Callable[..., Any] | None = None) -> Steps[int]:
        """Write the content to an open file; returns how many bytes. `progress_cb(advance=…)` is told of each piece."""
        page, written = self._read_file(path), 0
        while (pieces := (yield from page())) is not None:
            for piece in pieces:
                fileobj.write(piece)
                written += len(piece)
                if progress_cb is not None:
                    progress_cb(advance=len(piece))
        return written

    def _remove_file(self, path: str, recursive: bool = False) -> Steps[None]:
        """Remove a file, or with `recursive` a folder. Raises `NotFoundError`, `InvalidError`."""
        from potluck.wire.volumes import ChangeVolume, RemovePath

        yield ChangeVolume((yield from self._id()), (RemovePath(path, recursive),))

    def _copy_files(self, src_paths: Sequence[str], dst_path: str, recursive: bool = False) -> Steps[None]:
        """As `cp`: to `dst_path`, or into it if it is a folder. No byte is moved. Raises `NotFoundError`,
        `InvalidError`."""
        from potluck.wire.volumes import ChangeVolume, CopyPaths

        if isinstance(src_paths, str):
            raise InvalidError("copy_files() takes a list of paths.", fix=f"Write [{src_paths!r}].")
        operation = CopyPaths(tuple(src_paths), dst_path, recursive)
        yield ChangeVolume((yield from self._id()), (operation,))

    # Versions: Potluck's own

    def _log(self, limit: int = 100) -> Steps[list[VolumeVersion]]:
        """The last versions, the newest first."""
        from potluck.wire.volumes import AskHeads
        from potluck_ledger.volume_heads import read_head

        found: list[VolumeVersion] = []
        more = True
        while more and len(found) < limit:
            before = found[-1].version if found else 0
            page: VolumeHeads = yield AskHeads((yield from self._id()), before)
            for head, signer in map(read_head, page.envelopes):
                counted = (head.changed, head.removed, head.files, head.bytes)
                found.append(VolumeVersion(head.version, head.at_us, head.by, head.what, *counted, signer))
            more = page.more
        return found[:limit]

    def _copies(self) -> Steps[VolumeCopies]:
        """How many other peers hold the newest version."""
        from potluck.wire.volumes import AskHead

        at: VolumeAt = yield AskHead((yield from self._id()))
        return VolumeCopies(at.version, at.copies, at.wanted)

    def _restore(self, version: int, path: str = "") -> Steps[int]:
        """Make a version in which a path, or everything, is as in an old one; returns its number. Raises
        `NotFoundError`."""
        from potluck.wire.volumes import RestoreVolume

        at: VolumeAt = yield RestoreVolume((yield from self._id()), version, path)
        return at.version


def _rename(old_name: str, new_name: str) -> Steps[None]:
    """Give a volume another name. Raises `NotFoundError`, `AlreadyExistsError`."""
    from potluck.wire.volumes import RenameVolume

    yield RenameVolume(old_name, new_name)


def recover() -> Steps[list[str]]:
    """Take back volumes that the node has signed and does not know any more, from peers that keep copies; their
    names."""
    from potluck.wire.volumes import RecoverVolumes, VolumesRecovered

    found: VolumesRecovered = yield RecoverVolumes()
    return list(found.names)


Volume.objects = Manager(lambda: Volume)
Volume.rename = Both(_rename)
