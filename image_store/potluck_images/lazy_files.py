"""The file system that the kernel asks: a merged image, read-only, its contents read chunk by chunk.

Names and attributes never change, so that the kernel may keep them, and what it has read, as long as it likes.
"""

from __future__ import annotations

import errno
import logging
import os
import stat

import pyfuse3

from potluck_images.errors import ImageStoreError
from potluck_images.filecache import MTIME_S
from potluck_images.lazy_chunks import LazyChunks, reason
from potluck_images.lazy_tree import LazyTree, Node

log = logging.getLogger("potluck.lazy")

# How long the kernel may remember names and attributes, seconds.
TIMEOUT_S = 86_400.0
BLOCK_BYTES = 4096


class LazyFiles(pyfuse3.Operations):
    """File handles are inode numbers: nothing is kept for an open file."""

    def __init__(self, tree: LazyTree, chunks: LazyChunks) -> None:
        super().__init__()
        self._tree, self._chunks = tree, chunks

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = self._tree.child(parent_inode, name)
        return _nothing() if node is None else _attributes(node)

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return _attributes(self._tree.node(inode))

    async def readlink(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileNameT:
        return pyfuse3.FileNameT(self._tree.node(inode).target or b"")

    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for number, (name, node) in enumerate(self._tree.names(fh, start_id), start_id + 1):
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), _attributes(node), number):
                return

    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(errno.EROFS)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        try:
            return await self._chunks.read(self._tree.spans(fh, off, size))
        except ImageStoreError as error:
            log.warning("a read fails: %s", reason(error))
            raise pyfuse3.FUSEError(errno.EIO) from None

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK_BYTES
        data.f_files = len(self._tree)
        data.f_namemax = 255
        return data


def _attributes(node: Node) -> pyfuse3.EntryAttributes:
    kind = stat.S_IFDIR if node.children is not None else stat.S_IFLNK if node.target is not None else stat.S_IFREG
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(node.inode)
    entry.st_mode = pyfuse3.ModeT(kind | node.mode)
    entry.st_nlink = 1
    entry.st_size = node.size
    entry.st_blksize = BLOCK_BYTES
    entry.st_blocks = -(-node.size // 512)
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = MTIME_S * 10**9
    entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
    return entry


def _nothing() -> pyfuse3.EntryAttributes:
    """That a name does not exist may be remembered, too: an import looks for a file in many places."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = TIMEOUT_S
    return entry
