"""Images that can be used before they are here: mounted by a process of their own, fetched as they are read.

One mount for each pool: what it reads is the access profile of that function, and it ends with the pool.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from potluck.errors import SandboxError
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageStoreError
from potluck_images.lazy_ahead import Ahead
from potluck_images.lazy_pull import LazyPull
from potluck_images.lazy_support import why_not
from potluck_images.lazy_wire import (
    FromMount,
    Have,
    Lost,
    MountFailed,
    Need,
    ToMount,
    Touched,
    encode,
    from_mount,
)
from potluck_images.pull import ImagePull
from potluck_node.chunks import Puller
from potluck_node.fetch import Fetcher
from potluck_node.lazy_profile import Profiles
from potluck_node.store_errors import own_errors

log = logging.getLogger("potluck.lazy")

# Less than this is better fetched whole: what a function waits for while it reads is billed to its caller. Measured on
# an image of 333 MiB over loopback, 72 calls were billed 48 s lazily and 25 s otherwise, and ended 3 s later.
MISSING_BYTES_MIN = 512 << 20
# Starting a Python process and reading the manifests takes a second on a slow machine.
MOUNT_TIMEOUT_S = 20.0
# How long a mount process may take to unmount before it is killed.
END_TIMEOUT_S = 3.0
# A profile is kept this often while it grows, so that a node that dies has most of it.
KEEP_PROFILE_S = 10.0
RECEIVE_BYTES = 1 << 16


class MountError(Exception):
    """The image cannot be mounted here; the text says why."""


class LazyImages:
    """Decides which images are mounted. `setting`: "auto", "never", or "always", also for small images."""

    def __init__(self, home: Path, fetcher: Fetcher, store: DiskStore, setting: str) -> None:
        self.fetcher, self.store = fetcher, store
        self.store_folder, self._folder = home / "store", home / "lazy"
        self.profiles = Profiles(home, store)
        fetcher.profile_of = self.profiles.named
        self._bytes_min = 0 if setting == "always" else MISSING_BYTES_MIN
        # Why images are fetched as a whole; empty when they can be mounted.
        self.off = "the setting `lazy` says so" if setting == "never" else why_not()
        _clear(self._folder)

    async def open(self, image: str, caller: str, function: str, private: bool = False) -> LazyRoot | None:
        """The image as a folder, or None when it is better, or only possible, to fetch all of it first. If `private`
        the caller alone is asked. Raises `ImageStoreError` when nobody has it."""
        if self.off:
            log.info("all of image %s is fetched before it is used: %s", image[:12], self.off)
            return None
        pull = await self.fetcher.describe(image, caller, private)
        if pull.progress.total - pull.progress.done <= self._bytes_min:
            return None
        folder = self._folder / f"{image[:12]}-{secrets.token_hex(4)}"
        root = LazyRoot(self, image, caller, function, pull, folder, private)
        try:
            await root.start()
        except MountError as error:
            self.off = str(error)
            log.warning("images are fetched as a whole from now on: mounting failed: %s", error)
            return None
        except BaseException:
            await root.aclose()
            raise
        return root


class LazyRoot:
    """One mounted image. `start`, then `serve` for as long as it is used, then `aclose`."""

    def __init__(
        self, images: LazyImages, image: str, caller: str, function: str, described: ImagePull, folder: Path,
        private: bool = False,
    ) -> None:  # fmt: skip
        self.path, self._private = folder, private
        self._images, self._image, self._caller, self._function = images, image, caller, function
        self._pull = LazyPull(images.store, described.progress.done, described.progress.total)
        self._ahead = Ahead(described.manifests)
        self._chunks = {chunk.digest for layer in described.manifests for chunk in layer.chunks}
        self._process: trio.Process | None = None
        self._stream: trio.SocketStream | None = None
        self._reader = from_mount()
        self._news, self._tell = list[Have | Lost](), trio.Event()
        self._touched: list[bytes] = []
        self._kept_at = trio.current_time()

    async def start(self) -> None:
        """Mount. Raises `MountError`, with nothing left behind."""
        ours, theirs = socket.socketpair()
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        try:
            with theirs:
                self.path.mkdir(parents=True)
                self._process = await self._run(theirs.fileno())
            with trio.fail_after(MOUNT_TIMEOUT_S):
                first = await anext(self._messages(), MountFailed("the mount process ended"))
            if isinstance(first, MountFailed):
                raise MountError(first.why)
        except (OSError, trio.TooSlowError) as error:
            await self.aclose()
            raise MountError(str(error) or f"no answer for {MOUNT_TIMEOUT_S:g} s") from None
        except MountError:
            await self.aclose()
            raise

    async def _run(self, descriptor: int) -> trio.Process:
        words = (str(self._images.store_folder), self._image, str(self.path), str(descriptor))
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "potluck_images.lazy_mount", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,
        )

    async def _messages(self) -> AsyncIterator[FromMount | ToMount]:
        assert self._stream
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self._stream.receive_some(RECEIVE_BYTES):
                for message in self._reader.feed(data):
                    yield message

    async def serve(self) -> None:
        """Fetch what is read, until cancelled; then unmount. Raises `potluck.errors.Error` when the mount is gone."""
        fetcher = self._images.fetcher
        puller = fetcher.puller(self._pull)
        if not self._private:
            fetcher.partial[self._image] = None
        drive = partial(fetcher.drive, puller, self._image, self._caller, private=self._private)
        try:
            with own_errors():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(drive, lambda progress: self._note())
                    nursery.start_soon(self._tell_mount)
                    nursery.start_soon(self._read_ahead, puller)
                    await self._answer(puller)
        finally:
            fetcher.partial.pop(self._image, None)
            # Now and not after the sandbox: a process that waits for a chunk cannot even be killed.
            await self.aclose()

    async def _answer(self, puller: Puller) -> None:
        async for message in self._messages():
            if isinstance(message, Need):
                await puller.want(message.digests, urgent=True)
                if following := self._ahead.after(message.digests):
                    await puller.want(tuple(following), urgent=False)
            elif isinstance(message, Touched):
                self._touched += message.digests
                if trio.current_time() - self._kept_at > KEEP_PROFILE_S:
                    await self._keep_profile()
        raise SandboxError(
            "The sandbox lost its image.",
            why="the process that mounts it has ended",
            fix='See the provider\'s log; with `lazy = "never"` images are fetched as a whole.',
        )

    async def _read_ahead(self, puller: Puller) -> None:
        """Fetch what earlier runs have read, here or elsewhere."""
        name = (self._image, self._function)
        digests = await trio.to_thread.run_sync(self._images.profiles.read, *name)
        if not digests and not self._private:
            digests = await self._images.fetcher.ask_profile(*name, self._caller)
        known = tuple(digest for digest in digests if digest in self._chunks)
        log.info("reading ahead %d chunks of image %s", len(known), self._image[:12])
        if known:
            await puller.want(known, urgent=False)

    def _note(self) -> None:
        """The puller has stored what came; tell the mount."""
        came, lost = self._pull.news()
        self._news += [*([Have(tuple(came))] if came else []), *([Lost(tuple(lost))] if lost else [])]
        if self._news:
            self._tell.set()

    async def _tell_mount(self) -> None:
        assert self._stream
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # `_answer` says it
            while True:
                await self._tell.wait()
                news, self._news, self._tell = self._news, [], trio.Event()
                await self._stream.send_all(b"".join(map(encode, news)))

    async def _keep_profile(self) -> None:
        self._kept_at = trio.current_time()
        with suppress(ImageStoreError, OSError):  # a full disk: the profile is a hint
            add = partial(self._images.profiles.add, self._image, self._function, list(self._touched))
            await trio.to_thread.run_sync(add)

    async def aclose(self) -> None:
        """Unmount and end the process; also when cancelled, and more than once."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(END_TIMEOUT_S):
                await self._hear_the_rest()
            if self._stream:
                await self._stream.aclose()
            if self._process:
                await _end(self._process)
                self._process = None
                if self._touched:
                    await self._keep_profile()
            await trio.to_thread.run_sync(_remove, self.path)

    async def _hear_the_rest(self) -> None:
        """The mount ends when we say no more, and then says what was read last."""
        if self._stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                await self._stream.send_eof()
            async for message in self._messages():
                if isinstance(message, Touched):
                    self._touched += message.digests


async def _end(process: trio.Process) -> None:
    with trio.move_on_after(END_TIMEOUT_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        with trio.move_on_after(END_TIMEOUT_S):
            await process.wait()


def _clear(folder: Path) -> None:
    """Remove what a killed node and its killed mounts left."""
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            _remove(path)


def _remove(path: Path) -> None:
    if _is_mounted(path):
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
        with suppress(OSError):
            subprocess.run([*command, str(path)], check=False, stderr=subprocess.DEVNULL, timeout=END_TIMEOUT_S)
    with suppress(OSError):
        path.rmdir()


def _is_mounted(path: Path) -> bool:
    """Asks the kernel's table, not the folder: one that lost its process answers nothing but errors."""
    name = str(path.parent.resolve() / path.name).replace(" ", "\\040")
    return any(line.split()[1] == name for line in Path("/proc/self/mounts").read_text().splitlines())
