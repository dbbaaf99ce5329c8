"""Volumes on their owner's node: answers what is asked, and makes each commit a new signed head.

A commit is pinned in the store before its head is in the database, so that no head ever names what is gone; a commit
that another one overtook is made anew on top of that.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

from potluck.errors import ConnectionError, Error, InvalidError, NotFoundError, RefusedError, StoreFullError
from potluck.wire import state as state_messages
from potluck.wire import volumes as messages
from potluck_images import volume_tree as vt
from potluck_images.errors import CorruptDataError
from potluck_images.errors import NotFoundError as ChunkMissingError
from potluck_images.image import get_manifest
from potluck_images.manifest import File, Manifest
from potluck_images.pack import pack
from potluck_images.tree import Tree
from potluck_ledger.volume_heads import TEXT_MAX, VolumeHead, head_digest, read_head, sign_head
from potluck_node.clock import Clock
from potluck_node.images import ImageService
from potluck_node.state import volumes as heads
from potluck_node.state.service import State
from potluck_node.state.work import Asker
from potluck_node.store_errors import own_errors
from potluck_node.volumes import contents
from potluck_node.volumes.trees import Trees
from potluck_node.volumes.uploads import Uploads

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from potluck_ledger.keys import PrivateKey

log = logging.getLogger("potluck.volumes")

# How often a commit is made anew because others came first. Each time somebody else's commit went through; nodes that
# share a database do not meet more often than this.
TRIES_MAX = 20
# Files that are packed at the same time.
PACKS_MAX = 1

# How often it is looked for versions that no head names any more, also when nothing seems to have changed, seconds, and
# how long after one look the next may come.
TIDY_S, TIDY_PAUSE_S = 600.0, 5.0

# Makes the new tree of the newest one.
Change = Callable[[Manifest], Manifest]


class Words(NamedTuple):
    """What a head says of who committed, and how."""

    by: str
    what: str


class VolumeService:
    """`sources` are peers that may have a volume's tree, by its id; `changed` is told of each new head."""

    def __init__(self, home: Path, images: ImageService, state: State, key: PrivateKey, clock: Clock) -> None:
        self._trees, self._state, self._key, self._clock = Trees(images), state, key, clock
        self._uploads = Uploads(home / "volumes" / "uploads", images.keeper.bytes_max)
        self._locks: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        self._packs = trio.CapacityLimiter(PACKS_MAX)
        self.sources: Callable[[str], Sequence[str]] = lambda volume: ()
        self.copies: Callable[[str, int], tuple[int, int]] = lambda volume, version: (0, 0)
        self.changed: Callable[[], None] = lambda: None
        # Heads that this node has signed of volumes that it does not know, and who has them.
        self.lost: Callable[[], list[tuple[bytes, list[str]]]] = list
        # Takes back from copies what the store lost of a volume's newest version.
        self.mend: Callable[[str], Awaitable[None]] = _nothing
        self._untidy = trio.Event()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let go of what is no longer needed, until cancelled."""
        task_status.started()
        while True:
            try:
                await self.tidy()
            except Error as error:
                log.warning("old versions of volumes stay: %s", error)
            self._untidy = trio.Event()
            with trio.move_on_after(TIDY_S):
                await self._untidy.wait()
            await trio.sleep(TIDY_PAUSE_S)

    async def ask(self, request: messages.VolumeRequest, asker: Asker) -> state_messages.StateAnswer:
        """Raises `potluck.errors.Error`."""
        try:
            return await self._ask(request, asker)
        except OSError as error:
            why, fix = str(error), "Make room, or mend the disk. Nothing was changed."
            raise StoreFullError("Files of volumes cannot be read or written here.", why=why, fix=fix) from None

    async def _ask(self, request: messages.VolumeRequest, asker: Asker) -> state_messages.StateAnswer:
        with own_errors():
            match request:
                case messages.AskHead():
                    if asker.app:  # a worker's node, which is going to fetch it from here
                        await self.mend(request.id)
                    return self._with_copies(request.id, await self._head(request.id))
                case messages.AskHeads():
                    return await self._state.transact(heads.page(request.id, request.before))
                case messages.ListFiles():
                    return await self._list(request)
                case messages.ReadFile():
                    return await self._read(request)
                case messages.StageData():
                    await trio.to_thread.run_sync(self._uploads.add, asker.name, request)
                    return state_messages.Yes()
                case messages.ChangeVolume():
                    return await self._apply(request, asker)
                case messages.CommitVolume():
                    return await self._commit(request, asker)
                case messages.RestoreVolume():
                    return await self._restore(request, asker)
                case messages.RecoverVolumes():
                    return await self._recover(asker)

    def left(self, asker: str) -> None:
        """What it staged goes, and what it made without a name."""
        self._uploads.left(asker)
        self._untidy.set()

    def deleted(self) -> None:
        """A volume, with its heads."""
        self._untidy.set()
        self.changed()

    async def tidy(self) -> None:
        """Let go of trees that no head names any more; hold those that a power cut let go of, which are here."""
        shelf = self._trees.images.keeper.shelf
        pins = await trio.to_thread.run_sync(shelf.pins)
        kept = await self._state.transact(heads.kept)
        reasons = {_reason(volume, version): image for (volume, version), image in kept.items()}
        missing = {reason: image for reason, image in reasons.items() if (image, reason) not in set(pins)}
        await trio.to_thread.run_sync(self._trees.pin_again, missing)
        for image, reason in pins:
            volume = reason.rpartition("-")[0]
            busy = volume in self._locks and self._locks[volume].locked()
            if reason.startswith("vo-") and reason not in reasons and not busy:
                await trio.to_thread.run_sync(self._unpin, image, reason)

    # Reading

    async def _head(self, volume: str) -> messages.VolumeAt:
        return await self._state.transact(heads.head(volume))

    def _with_copies(self, volume: str, at: messages.VolumeAt) -> messages.VolumeAt:
        have, wanted = self.copies(volume, at.version)
        return messages.VolumeAt(at.version, at.image, at.envelope, have, wanted)

    async def _at(self, volume: str, version: int) -> messages.VolumeAt:
        """A version, the newest for 0. Raises `NotFoundError`."""
        if not version:
            return await self._head(volume)
        found = await self._state.transact(heads.version(volume, version))
        if not found.version:
            raise NotFoundError(f"The volume has no version {version}.", fix="See `potluck volume log`.")
        return found

    async def tree(self, volume: str, at: messages.VolumeAt) -> Manifest:
        return await self._trees.load(at.image, [*_signers(at.envelope), *self.sources(volume)])

    async def _list(self, request: messages.ListFiles) -> messages.FilePage:
        at = await self._at(request.id, request.version)
        at_us = read_head(at.envelope)[0].at_us if at.envelope else 0
        return contents.listing(await self.tree(request.id, at), request, at_us)

    async def _read(self, request: messages.ReadFile) -> messages.FileBlock:
        at = await self._at(request.id, request.version)
        tree = await self.tree(request.id, at)
        file = contents.file_at(tree, request.path)
        pieces = contents.pieces_at(file, max(0, request.offset), messages.BLOCK_BYTES)
        try:
            data = await trio.to_thread.run_sync(self._join, tree, pieces)
        except (ChunkMissingError, CorruptDataError):
            await self._trees.fetch(at.image, self.sources(request.id))
            data = await trio.to_thread.run_sync(self._join, tree, pieces)
        return messages.FileBlock(data, file.size)

    def _join(self, tree: Manifest, pieces: list[tuple[int, int, int]]) -> bytes:
        store = self._trees.store
        found = (store.get(tree.chunks[chunk].digest)[offset : offset + size] for chunk, offset, size in pieces)
        return b"".join(found)

    # Changing

    async def _apply(self, request: messages.ChangeVolume, asker: Asker) -> messages.VolumeAt:
        if len(request.operations) > messages.OPERATIONS_MAX:
            raise InvalidError(f"At most {messages.OPERATIONS_MAX} files are changed at once.")
        puts = tuple(each for each in request.operations if isinstance(each, messages.PutFile))
        staged = await self._pack_staged(request.upload, puts, asker) if puts else {}
        verbs = {"put": bool(puts), "removed": len(puts) < len(request.operations)}
        copies = any(isinstance(each, messages.CopyPaths) for each in request.operations)
        what = "copied" if copies else " and ".join(verb for verb, yes in verbs.items() if yes)
        change = partial(contents.changed, operations=request.operations, staged=staged)
        at = await self._change(request.id, Words(_who(asker), what), change)
        if puts:
            await trio.to_thread.run_sync(self._uploads.done, asker.name, request.upload)
        return at

    async def _pack_staged(self, upload: str, puts: tuple[messages.PutFile, ...], asker: Asker) -> dict[int, vt.Node]:
        def work() -> dict[int, vt.Node]:
            packed = self._pack(self._uploads.tree(asker.name, upload, puts))
            return {int(path): node for path, node in vt.nodes(packed).items()}

        async def attempt() -> dict[int, vt.Node]:
            return await trio.to_thread.run_sync(work, limiter=self._packs)

        return await self._trees.images.keeper.write(attempt)

    def _pack(self, tree: Tree) -> Manifest:
        return get_manifest(self._trees.store, pack(tree, self._trees.store))

    async def _commit(self, request: messages.CommitVolume, asker: Asker) -> messages.VolumeAt:
        """What a worker changed: fetched from where it ran, then applied to the newest version."""
        keeper = self._trees.images.keeper
        await keeper.hold(request.image)
        try:
            if asker.peer != self._key.peer:
                await self._trees.fetch(request.image, [asker.peer])
            change = await self._trees.load(request.image)
            words = Words(_who(asker), request.what[:TEXT_MAX])
            return await self._change(request.id, words, lambda tree: vt.apply(tree, change).tree)
        finally:
            keeper.release(request.image)
            # What it changed is in a version now, or in none.
            await trio.to_thread.run_sync(keeper.shelf.forget, request.image)

    async def _restore(self, request: messages.RestoreVolume, asker: Asker) -> messages.VolumeAt:
        path = contents.clean(request.path)
        old = await self.tree(request.id, await self._at(request.id, request.version))
        words = Words(_who(asker), f"restored {path or 'all'} of version {request.version}"[:TEXT_MAX])
        return await self._change(request.id, words, lambda tree: vt.restored(tree, old, path))

    async def _recover(self, asker: Asker) -> messages.VolumesRecovered:
        if asker.app:
            raise RefusedError("A worker cannot recover volumes.")
        names = []
        for envelope, peers in self.lost():
            head, _ = read_head(envelope)
            async with self._locks[head.volume]:
                await self._trees.fetch(head.image, peers)
                pins = {_reason(head.volume, head.version): head.image}
                await trio.to_thread.run_sync(self._trees.pin_again, pins)
                names.append(await self._state.transact(heads.recover(head, envelope)))
        self.changed()
        return messages.VolumesRecovered(tuple(filter(None, names)))

    async def _change(self, volume: str, words: Words, change: Change) -> messages.VolumeAt:
        """A new version, or the newest one where nothing changes."""
        async with self._locks[volume]:
            for _ in range(TRIES_MAX):
                at = await self._head(volume)
                tree = await self.tree(volume, at)
                version = at.version + 1
                image, after = await self._trees.keep(partial(change, tree), _reason(volume, version))
                if image == at.image or (not at.version and not after.entries):
                    await self._let_go(image, volume, version)
                    return self._with_copies(volume, at)
                name = await self._state.transact(heads.name_of(volume))
                head = _head_of(volume, at, image, words, tree, after, self._clock.now_us(), name)
                if found := await self._append(head):
                    return found
                await self._let_go(image, volume, version)
        raise ConnectionError("Others commit to the volume all the time.", fix="Try again.")

    async def _append(self, head: VolumeHead) -> messages.VolumeAt | None:
        """None when another commit came first."""
        do = heads.append(head.volume, head.version, head.image, sign_head(self._key, head))
        made = await self._state.transact(do)
        if not made.version:
            return None
        self._untidy.set()
        self.changed()
        return self._with_copies(head.volume, made)

    async def _let_go(self, image: str, volume: str, version: int) -> None:
        await trio.to_thread.run_sync(self._unpin, image, _reason(volume, version))

    def _unpin(self, image: str, reason: str) -> None:
        self._trees.images.keeper.shelf.unpin(image, reason)
        self._trees.images.keeper.shelf.forget(image)


def _head_of(
    volume: str,
    at: messages.VolumeAt,
    image: str,
    words: Words,
    tree: Manifest,
    after: Manifest,
    now_us: int,
    name: str,
) -> VolumeHead:
    old, new = vt.nodes(tree), vt.nodes(after)
    changed = sum(not vt.same(node.entry, old[path].entry if path in old else None) for path, node in new.items())
    return VolumeHead(
        volume,
        at.version + 1,
        image,
        head_digest(at.envelope) if at.envelope else "",
        now_us,
        words.by,
        words.what,
        changed,
        len(old.keys() - new.keys()),
        sum(isinstance(entry, File) for entry in after.entries),
        after.size,
        name,
    )


async def _nothing(volume: str) -> None:
    await trio.lowlevel.checkpoint()


def _reason(volume: str, version: int) -> str:
    """Why an image is pinned."""
    return f"{volume}-{version}"


def _who(asker: Asker) -> str:
    return f"{asker.app} on {asker.peer[-8:]}"[:TEXT_MAX] if asker.app else "a program of the owner"


def _signers(envelope: bytes) -> list[str]:
    return [read_head(envelope)[1]] if envelope else []
