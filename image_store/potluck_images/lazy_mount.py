"""The process that shows one image as a folder until its socket ends.

    python -m potluck_images.lazy_mount STORE IMAGE FOLDER SOCKET_FD

A process of its own: a crash costs one pool, and page faults do not wait for the node's event loop. The image's config
and manifests must be in the store; all other chunks are asked for on the socket (`lazy_wire`) when they are first read.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyfuse3
import trio

from potluck_images.disk import DiskStore
from potluck_images.image import get_config, get_manifests
from potluck_images.lazy_chunks import LazyChunks
from potluck_images.lazy_files import LazyFiles
from potluck_images.lazy_tree import LazyTree
from potluck_images.lazy_wire import (
    FromMount,
    Have,
    Lost,
    Mounted,
    MountFailed,
    Need,
    ToMount,
    Touched,
    encode,
    to_mount,
)
from potluck_images.merge import merge

# Bytes of one read of the socket.
RECEIVE_BYTES = 1 << 16


def main() -> None:
    """Serve until the socket ends. Exit status 1 when the image could not be mounted; the node was told why."""
    store, image, folder, descriptor = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ours = socket.socket(fileno=int(descriptor))
    sys.exit(trio.run(_run, Path(store), image, folder, ours, strict_exception_groups=True))


async def _run(store_folder: Path, image: str, folder: str, ours: socket.socket) -> int:
    channel = Channel(ours)
    with ExitStack() as held:
        try:
            store = DiskStore(store_folder)
            held.callback(store.close)
            tree = LazyTree(merge(get_manifests(get_config(store, image), store.get)))
            chunks = LazyChunks(store, channel.need, channel.touched)
            held.enter_context(_mounted(LazyFiles(tree, chunks), folder))
        except Exception as error:  # noqa: BLE001 - whatever it is, the node has to know, and goes on without us
            await channel.tell(MountFailed(str(error) or type(error).__name__))
            return 1
        await _serve(channel, chunks)
    return 0


async def _serve(channel: Channel, chunks: LazyChunks) -> None:
    """Until the node ends the conversation, or somebody unmounts the folder."""
    async with trio.open_nursery() as nursery:

        async def files() -> None:
            await pyfuse3.main()
            nursery.cancel_scope.cancel()

        nursery.start_soon(files)
        nursery.start_soon(chunks.report)
        await channel.tell(Mounted())
        async for message in channel.messages():
            if isinstance(message, Have):
                chunks.have(message.digests)
            elif isinstance(message, Lost):
                chunks.lost(message.digests)
        await chunks.report_now()
        nursery.cancel_scope.cancel()


class Channel:
    """Our end of the socket. When the node is gone, telling does nothing and `messages` ends."""

    def __init__(self, ours: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._lock = trio.Lock()

    async def tell(self, message: FromMount) -> None:
        with suppress(trio.BrokenResourceError):
            async with self._lock:
                await self._stream.send_all(encode(message))

    async def need(self, digests: tuple[bytes, ...]) -> None:
        await self.tell(Need(digests))

    async def touched(self, digests: tuple[bytes, ...]) -> None:
        await self.tell(Touched(digests))

    async def messages(self) -> AsyncIterator[FromMount | ToMount]:
        reader = to_mount()
        with suppress(trio.BrokenResourceError):
            while data := await self._stream.receive_some(RECEIVE_BYTES):
                for message in reader.feed(data):
                    yield message


@contextmanager
def _mounted(files: LazyFiles, folder: str) -> Iterator[None]:
    # Sandboxes of a node that is root run as another user; those of an ordinary user as that user.
    options = {"fsname=potluck", "ro", "default_permissions", *(["allow_other"] if os.geteuid() == 0 else [])}
    pyfuse3.init(files, folder, options)
    # A tree of 30,000 files is made once and never freed: looking through it again and again is a waste.
    gc.freeze()
    try:
        yield
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
