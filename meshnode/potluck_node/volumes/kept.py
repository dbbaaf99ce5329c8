"""Copies of other nodes' volumes that this node keeps: for peers that it trusts, as far as its owner allows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import trio

from potluck import wire
from potluck.errors import Error, RefusedError
from potluck.wire import Failure
from potluck.wire import copies as messages
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.volume_heads import VolumeHead, read_head
from potluck_node.clock import Clock
from potluck_node.core.copies import KEPT_FOR_US
from potluck_node.images import ImageService
from potluck_node.link import StreamLink
from potluck_node.transport.interface import Stream

# After the stream is open the request comes at once, seconds.
ASK_TIMEOUT_S = 10.0


class Keeper:
    """`bytes_max` bounds all copies; heads lie in `home`. `trusts` says for whom anything is kept."""

    def __init__(self, home: Path, images: ImageService, clock: Clock, bytes_max: int) -> None:
        self._home, self._images, self._clock, self._bytes_max = home / "volumes" / "kept", images, clock, bytes_max
        self.trusts: Callable[[str], bool] = lambda peer: False
        self._lock = trio.Lock()

    async def on_stream(self, stream: Stream) -> None:
        """Answer one request."""
        asked = trio.Event()
        requests: list[messages.KeepVolume | messages.AskKept | messages.DropVolume] = []

        def take(message: object) -> None:
            if isinstance(message, messages.KeepVolume | messages.AskKept | messages.DropVolume):
                requests.append(message)
                asked.set()

        link = StreamLink(stream, messages.ToKeeper, take, self._clock)
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                with trio.move_on_after(ASK_TIMEOUT_S):
                    await asked.wait()
                if requests:
                    link.post(await self._answer(requests[0], stream.peer))
                link.finish()

            nursery.start_soon(answer)
            await link.run()
            nursery.cancel_scope.cancel()

    async def _answer(self, request: object, peer: str) -> wire.Message:
        try:
            if not self.trusts(peer) or not self._bytes_max:
                raise RefusedError("This node keeps no copies of your volumes.", why="its owner does not trust yours")
            async with self._lock:
                if isinstance(request, messages.KeepVolume):
                    return await self._keep(request.envelope, peer)
                if isinstance(request, messages.DropVolume):
                    await trio.to_thread.run_sync(self._drop, peer, request.volume)
                kept = [envelope for envelope, _ in self._heads(peer)][: messages.KEPT_MAX]
                return messages.VolumesKept(tuple(kept))
        except Error as error:
            return messages.CopyRefused(Failure.of(error))

    async def _keep(self, envelope: bytes, peer: str) -> messages.VolumeKept:
        head = _checked(envelope, peer)
        self._drop_old()
        old = self._head(peer, head.volume)
        self._check_room(peer, head)
        await self._images.fetch_from(head.image, [peer])
        shelf = self._images.keeper.shelf
        await trio.to_thread.run_sync(shelf.pin, head.image, _reason(head))
        await trio.to_thread.run_sync(_write, self._place(peer, head.volume), envelope)
        if old and old.version != head.version:
            await trio.to_thread.run_sync(self._unpin, old)
        return messages.VolumeKept(head.volume, head.version)

    def _check_room(self, peer: str, new: VolumeHead) -> None:
        others = [head for _, head in self._heads() if head.volume != new.volume]
        size = sum(head.bytes for head in others) + new.bytes
        mine = [head for _, head in self._heads(peer) if head.volume != new.volume]
        if size > self._bytes_max or len(mine) >= messages.KEPT_MAX:
            raise RefusedError(
                "This node has no room for the copy.",
                why=f"it keeps {(size - new.bytes) >> 20} MiB of {self._bytes_max >> 20} for others",
                fix="Its owner can raise `volume_keep_gib`.",
            )

    def _heads(self, peer: str = "*") -> Iterator[tuple[bytes, VolumeHead]]:
        for path in self._home.glob(f"{peer}/*.head"):
            with suppress(EnvelopeError, OSError):
                envelope = path.read_bytes()
                yield envelope, read_head(envelope)[0]

    def _head(self, peer: str, volume: str) -> VolumeHead | None:
        with suppress(EnvelopeError, OSError):
            return read_head(self._place(peer, volume).read_bytes())[0]
        return None

    def _drop(self, peer: str, volume: str) -> None:
        head = self._head(peer, volume) if _is_id(volume) else None
        if head:
            self._place(peer, volume).unlink(missing_ok=True)
            self._unpin(head)

    def _unpin(self, head: VolumeHead) -> None:
        self._images.keeper.shelf.unpin(head.image, _reason(head))
        self._images.keeper.shelf.forget(head.image)

    def _drop_old(self) -> None:
        """What nobody has asked for in a long time."""
        limit_s = (self._clock.now_us() - KEPT_FOR_US) / 1e6
        for path in self._home.glob("*/*.head"):
            if path.stat().st_mtime < limit_s:
                self._drop(path.parent.name, path.stem)

    def _place(self, peer: str, volume: str) -> Path:
        return self._home / peer / f"{volume}.head"


def _checked(envelope: bytes, peer: str) -> VolumeHead:
    """Raises `RefusedError` for a head that is not that peer's own."""
    try:
        head, signer = read_head(envelope)
    except EnvelopeError as error:
        raise RefusedError("The head of the volume is refused.", why=str(error)) from None
    if signer != peer or not _is_id(head.volume):
        raise RefusedError("The head of the volume is refused.", why="another node has signed it")
    return head


def _is_id(volume: str) -> bool:
    return re.fullmatch(r"vo-[0-9a-f]{32}", volume) is not None


def _reason(head: VolumeHead) -> str:
    """Apart from those of this node's own volumes, which begin with their id."""
    return f"kept-{head.volume}-{head.version}"


def _write(place: Path, envelope: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(envelope)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(place)
