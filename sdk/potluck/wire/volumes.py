"""Volumes: what programs, workers and peers ask about them. The way is that of shared state (`wire.state`).

Paths are relative to the volume, with "/" between their parts. An envelope is a signed head
(`potluck_ledger.volume_heads`), empty for a volume in which nothing was ever put.
"""

from __future__ import annotations

from potluck.wire.common import Message

VOLUME = "volume"

# What one message carries of a file, bytes: a few round trips for each 100 MB.
BLOCK_BYTES = 4 << 20
# Entries of a folder in one answer, heads in one answer.
PAGE_FILES, PAGE_HEADS = 1000, 100
# Operations of one change, sources of one copy: each is checked before any is done.
OPERATIONS_MAX = 100_000
# Versions that are kept of each volume; the oldest goes when there are more. Background commits make at most one in
# 10 seconds, and only of what has changed.
HISTORY_MAX = 1000

FILE, FOLDER, LINK = "file", "folder", "link"


class AskHead(Message, frozen=True):
    """The newest version. Answered by `VolumeAt`."""

    id: str


class AskHeads(Message, frozen=True):
    """Versions below `before` (0: from the newest on), the newest first. Answered by `VolumeHeads`."""

    id: str
    before: int = 0


class ListFiles(Message, frozen=True):
    """What is in a folder, or all below it, after a path; of a file, the file itself. `version` 0 is the newest.
    Answered by `FilePage`."""

    id: str
    path: str = ""
    recursive: bool = False
    after: str = ""
    version: int = 0


class ReadFile(Message, frozen=True):
    """At most `BLOCK_BYTES` from an offset. Answered by `FileBlock`."""

    id: str
    path: str
    offset: int = 0
    version: int = 0


class StageData(Message, frozen=True):
    """More of a file that a change is going to put. `upload` is made up by whoever asks. Answered by `Yes`."""

    upload: str
    file: int
    data: bytes


class PutFile(Message, frozen=True):
    """A file that was staged (one that was not is empty). Without `force` there may be none yet at its path."""

    path: str
    file: int
    executable: bool = False
    force: bool = False


class RemovePath(Message, frozen=True):
    path: str
    recursive: bool = False


class CopyPaths(Message, frozen=True):
    """As `cp` does: into `target` if that is a folder."""

    sources: tuple[str, ...]
    target: str
    recursive: bool = False


class ChangeVolume(Message, frozen=True):
    """All of it, in order, as one version, or nothing. Answered by `VolumeAt`."""

    id: str
    operations: tuple[PutFile | RemovePath | CopyPaths, ...]
    upload: str = ""


class CommitVolume(Message, frozen=True):
    """From a provider: what a worker changed, as the only layer of an image that the provider has. Answered by
    `VolumeAt`."""

    id: str
    image: str
    what: str = "commit"


class RestoreVolume(Message, frozen=True):
    """A new version in which `path`, or everything, is as in an old one. Answered by `VolumeAt`."""

    id: str
    version: int
    path: str = ""


class RenameVolume(Message, frozen=True):
    """Answered by `Yes`."""

    name: str
    new: str


class RecoverVolumes(Message, frozen=True):
    """Take back volumes that this node has signed and does not know any more, from the peers that keep copies. Answered
    by `VolumesRecovered`."""


class VolumesRecovered(Message, frozen=True):
    """Their names; one whose name is taken has got another."""

    names: tuple[str, ...]


class CommitMount(Message, frozen=True):
    """Worker to its node: commit what was changed in a volume that is mounted here. Answered by `Mounted`."""

    id: str


class ReloadMount(Message, frozen=True):
    """Worker to its node: commit, then show the newest version. Answered by `Mounted`."""

    id: str


class SnapshotRoot(Message, frozen=True):
    """Worker to its node: make an image of the root as it is now. Answered by `RootSnapshot`."""


class VolumeAt(Message, frozen=True):
    """A version: 0, without an image or envelope, when nothing was ever put. `copies` are peers that hold it beside
    this node, of `wanted`."""

    version: int
    image: str
    envelope: bytes = b""
    copies: int = 0
    wanted: int = 0


class VolumeHeads(Message, frozen=True):
    envelopes: tuple[bytes, ...]
    more: bool = False


class FileFacts(Message, frozen=True):
    """`size` in bytes; `mtime_us` is when the version was committed, since trees carry no times."""

    path: str
    kind: str
    size: int
    mtime_us: int


class FilePage(Message, frozen=True):
    files: tuple[FileFacts, ...]
    more: bool = False


class FileBlock(Message, frozen=True):
    data: bytes
    size: int


class Mounted(Message, frozen=True):
    """What the mount shows now."""

    version: int


class RootSnapshot(Message, frozen=True):
    """The image's id; the node has it at least until the worker ends."""

    image: str


MountRequest = CommitMount | ReloadMount | SnapshotRoot
VolumeRequest = (
    AskHead | AskHeads | ListFiles | ReadFile | StageData | ChangeVolume | CommitVolume | RestoreVolume | RecoverVolumes
)
VolumeAnswer = VolumeAt | VolumeHeads | FilePage | FileBlock | Mounted | RootSnapshot | VolumesRecovered
