"""Chunks: the unit that is stored, sent and verified. A chunk's id is the BLAKE3 digest of its raw bytes.

Files of `SMALL_BYTES` and more are cut where their content says (FastCDC, Xia et al. 2020), so that an edit moves only
the chunks around it. Smaller files are grouped into bundles by directory: better compression, fewer requests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import zstandard
from pyfastcdc import BinaryStreamReader, FastCDC

from potluck_images.digest import digest
from potluck_images.errors import CorruptDataError

# Files below this are bundled: cutting them any further would only cost requests.
SMALL_BYTES = 64 << 10

# Part of the format: other numbers cut elsewhere and share nothing with chunks cut before.
CUT_AVERAGE_BYTES = 64 << 10
CUT_MIN_BYTES = 16 << 10
CUT_MAX_BYTES = 256 << 10

# A chunk and its envelope fit into one transport frame of 1 MiB even when it does not compress.
CHUNK_BYTES_MAX = 960 << 10
FRAME_BYTES_MAX = 1000 << 10

# A bundle may end from this size on, where a file's path says so (one path in 64, at some 8 KiB a file): a changed file
# moves the ends of its own bundle and perhaps the next, not of all that follow.
BUNDLE_MIN_BYTES = 256 << 10
BUNDLE_END_ONE_IN = 64

# Of level 3's processor time it takes four fifths, for 2 % more bytes (an installed torch, numpy and transformers).
ZSTD_LEVEL = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """A verified chunk: made by `pack` or `check_frame` only. `size` is the raw size in bytes."""

    digest: bytes
    frame: bytes
    size: int


class _Codecs(threading.local):
    """zstd contexts may not be shared by threads and are costly to make."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()


def pack(data: bytes | memoryview) -> Chunk:
    """Compress raw bytes. Raises `ValueError` outside of 1 to `CHUNK_BYTES_MAX` bytes: a bug of the caller."""
    if not 1 <= len(data) <= CHUNK_BYTES_MAX:
        raise ValueError(f"a chunk has 1 to {CHUNK_BYTES_MAX} bytes, not {len(data)}")
    return Chunk(digest(data), _codecs.compressor.compress(data), len(data))


def unpack(frame: bytes) -> bytes:
    """The raw bytes of a frame from anywhere, at most `CHUNK_BYTES_MAX`. Raises `CorruptDataError`."""
    if len(frame) > FRAME_BYTES_MAX:
        raise CorruptDataError(f"A chunk's frame of {len(frame)} bytes is over the limit of {FRAME_BYTES_MAX}.")
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if not 1 <= size <= CHUNK_BYTES_MAX:
            raise CorruptDataError(f"A chunk's frame declares {size} bytes; 1 to {CHUNK_BYTES_MAX} are accepted.")
        data = _codecs.decompressor.decompress(
            frame, max_output_size=CHUNK_BYTES_MAX, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise CorruptDataError("A chunk's frame cannot be unpacked.", why=str(error)) from None
    return data


def check_frame(frame: bytes) -> Chunk:
    """Unpack a frame and name it by its digest. Raises `CorruptDataError`."""
    data = unpack(frame)
    return Chunk(digest(data), frame, len(data))


def cut_stream(stream: BinaryStreamReader) -> Iterator[memoryview]:
    """Cut what `stream` reads into content-defined pieces, each valid until the next one is asked for."""
    for piece in _cutter().cut_stream(stream):
        yield piece.data


def cut(data: bytes) -> Iterator[memoryview]:
    """Cut `data` into content-defined pieces; nothing for nothing."""
    for piece in _cutter().cut_buf(data):
        yield piece.data


def _cutter() -> FastCDC:
    return FastCDC(CUT_AVERAGE_BYTES, min_size=CUT_MIN_BYTES, max_size=CUT_MAX_BYTES)


def bundles(files: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Group small files, (path, size) in order, into bundles of at most `CHUNK_BYTES_MAX` bytes."""
    bundle: list[str] = []
    total = 0
    for path, size in files:
        full = total + size > CHUNK_BYTES_MAX
        if bundle and (full or (total >= BUNDLE_MIN_BYTES and _may_start_bundle(path))):
            yield bundle
            bundle, total = [], 0
        bundle.append(path)
        total += size
    if bundle:
        yield bundle


def _may_start_bundle(path: str) -> bool:
    return digest(path.encode())[0] % BUNDLE_END_ONE_IN == 0
