"""Reading one OCI layer, a tar stream from strangers, without writing any of its names to disk.

Content goes to numbered files in a work folder; names and links stay in memory. Sizes are bounded before they are
believed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

import zstandard

from potluck_images.errors import ImageError
from potluck_images.manifest import ENTRIES_MAX, check_path, sort_key
from potluck_images.oci_words import bad
from potluck_images.packfile import clearer

# All layers of an image, unpacked. CUDA images have some 20 GB; a kilobyte of gzip can claim a thousand times itself.
IMAGE_BYTES_MAX = 64 << 30
# Extended headers hold a path and some attributes; tarfile reads them whole into memory.
EXTENDED_BYTES_MAX = 1 << 20
_BLOCK_BYTES = 256 << 10
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Entry(NamedTuple):
    """`kind` is dir, file, link (symbolic) or hard; `target` where a link leads; `source` a file's content."""

    kind: str
    path: str
    target: str = ""
    source: Path = Path()
    size: int = 0
    executable: bool = False


class Budget:
    """Raw bytes and entries that all layers of one image may still take."""

    def __init__(self, bytes_max: int = IMAGE_BYTES_MAX, entries_max: int = ENTRIES_MAX) -> None:
        self._bytes, self._entries = bytes_max, entries_max

    def take(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise bad("unpacked, it is larger than this node accepts")

    def take_entry(self) -> None:
        self._entries -= 1
        if self._entries < 0:
            raise bad("it has more files than this node accepts")


class Spool:
    """Numbered files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()

    def write(self, content: IO[bytes]) -> Path:
        path = self._folder / str(next(self._numbers))
        with open(path, "xb") as out:
            shutil.copyfileobj(content, out, _BLOCK_BYTES)
        return path


class _Info(tarfile.TarInfo):
    """Refuses headers that would have tarfile read without bound; this method is where it dispatches by type."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        is_extended = self.type in (*_EXTENDED, tarfile.GNUTYPE_LONGLINK)
        if self.size < 0 or (is_extended and self.size > EXTENDED_BYTES_MAX):
            raise bad(f"a layer has a header of {self.size} bytes")
        tar.pax_headers = {}  # global headers add up, and say nothing that is used
        return cast(tarfile.TarInfo, super()._proc_member(tar))  # type: ignore[misc]


def read_layer(blob: Path, spool: Spool, budget: Budget, diff_id: str) -> Iterator[Entry]:
    """The entries in their order, the content of files spooled. Raises `ImageError`, `StoreFullError`.

    `diff_id` is the SHA-256 of the unpacked tar, as the image's config has it.
    """
    with open(blob, "rb") as packed, _own_errors():
        stream = _Counted(_unpacked(packed), budget)
        # tarfile's stub wants more of a stream than its "r|" mode uses.
        source = cast(IO[bytes], stream)
        with tarfile.open(fileobj=source, mode="r|", bufsize=_BLOCK_BYTES, tarinfo=_Info, encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would remember all of them
                budget.take_entry()
                if entry := _entry(tar, info, spool, budget):
                    yield entry
        while stream.read(_BLOCK_BYTES):
            pass
        if stream.digest() != diff_id:
            raise bad("a layer unpacks to other bytes than the image's config says")


def _unpacked(packed: IO[bytes]) -> IO[bytes]:
    """By what the bytes say, since media types are often wrong."""
    magic = packed.read(4)
    packed.seek(0)
    if magic.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=packed))
    if magic == _ZSTD:
        # A frame says how much memory unpacking takes: zstd's default bound of 128 MiB stands.
        return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True))
    return packed


class _Counted(io.RawIOBase):
    """Hashes and counts what is read."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self._stream, self._budget, self._hasher = stream, budget, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, _BLOCK_BYTES) if size > 0 else _BLOCK_BYTES)
        self._budget.take(len(data))
        self._hasher.update(data)
        return data

    def digest(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, zstandard.ZstdError, ValueError) as error:
        raise bad(f"a layer cannot be read: {error}") from None
    except RecursionError:
        raise bad("a layer's headers are nested without end") from None
    except OSError as error:
        raise clearer(error) from None


def _entry(tar: tarfile.TarFile, info: tarfile.TarInfo, spool: Spool, budget: Budget) -> Entry | None:
    path = plain_path(info.name, "")
    if not path:
        return None
    if info.isdir():
        return Entry("dir", path)
    if info.issym():
        return Entry("link", path, info.linkname)
    if info.islnk():
        return Entry("hard", path, plain_path(info.linkname, path))
    if info.isreg():
        if info.issparse():
            budget.take(info.size)
        content = tar.extractfile(info)
        assert content
        # Owner, group, time, set-user-id and the like end here: our manifests do not have them.
        return Entry("file", path, "", spool.write(content), info.size, bool(info.mode & 0o100))
    if path.startswith("dev/"):  # a sandbox brings its own devices
        return None
    raise bad(f"/{path} is a device or pipe, which no image may bring")


def plain_path(name: str, of: str) -> str:
    """Relative to the root, "" for the root itself. Raises `ImageError` for a path that is absolute or climbs."""
    path = name.removeprefix("./").rstrip("/")
    if path in ("", "."):
        return ""
    try:
        check_path(path, sort_key(path))
    except (ImageError, UnicodeEncodeError):
        where = f" (the hard link /{of} leads there)" if of else ""
        raise bad(f"{name[:200]!r}{where} is not a plain path inside the image") from None
    return path
