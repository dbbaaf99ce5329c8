"""Sees to it that enough other peers have the newest version of each volume, and takes back from them what is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from potluck import wire
from potluck.errors import ConnectionError, Error
from potluck.wire import copies as messages
from potluck_images.errors import ImageStoreError
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.volume_heads import read_head
from potluck_node.clock import Clock
from potluck_node.core.copies import Copies, Drop, Keep
from potluck_node.images import ImageService
from potluck_node.link import StreamLink
from potluck_node.state import volumes as heads
from potluck_node.state.service import State
from potluck_node.transport.interface import Transport, TransportError

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.volumes")

VOLUMES_PROTOCOL = "/potluck/volumes/1"

# How often it is looked who is there, seconds; at once after a commit.
LOOK_S = 3.0
# How often the heads are read, also when nothing told of a new one, seconds: another node may have made it.
READ_S = 60.0
# Copies that are made at the same time: each is a pull from this node.
COPIES_MAX = 2
# How long a peer may take for a copy, seconds: 50 GiB at 15 MiB a second.
COPY_TIMEOUT_S = 3600.0
ASK_TIMEOUT_S = 10.0
# How often it is looked whether the store has all chunks of the newest versions, seconds: an index is read for it.
WHOLE_S = 600.0


class Copying:
    """`peers` gives the trusted peers that are up, the best first."""

    def __init__(
        self, transport: Transport, images: ImageService, state: State, clock: Clock, wanted: int,
        peers: Callable[[], list[str]],
    ) -> None:  # fmt: skip
        self._us = transport.peer
        self._transport, self._images, self._state, self._clock, self._peers = transport, images, state, clock, peers
        self.copies = Copies(wanted)
        # The newest envelope of each named volume.
        self._newest: dict[str, bytes] = {}
        # All volumes in the database, and what peers told of heads that this node has signed: volume → peer → envelope.
        self._known: set[str] = set()
        self._told: dict[str, dict[str, bytes]] = {}
        self._asked: set[str] = set()
        self._busy: set[Keep | Drop] = set()
        self._places = trio.Semaphore(COPIES_MAX)
        self._wake, self._news = trio.Event(), trio.Event()
        self._read_at = -READ_S
        self._whole_at = 0.0

    def poke(self) -> None:
        """There is a new version, or a volume less."""
        self._news.set()
        self._wake.set()

    def count(self, volume: str, version: int) -> tuple[int, int]:
        """How many peers have a version, and how many are to."""
        return self.copies.count(volume, version, self._peers()), self.copies.wanted

    def sources(self, volume: str) -> list[str]:
        """Who may have a volume's newest versions."""
        return self.copies.sources(volume)

    def lost(self) -> list[tuple[bytes, list[str]]]:
        """Newest heads of volumes that are at peers and not in the database, and who has them."""
        found = []
        for volume, told in self._told.items():
            if volume not in self._known and told:
                best = max(told.values(), key=lambda envelope: read_head(envelope)[0].version)
                found.append((best, [peer for peer, envelope in told.items() if envelope == best]))
        return found

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep copies until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                try:
                    await self._look(nursery)
                except Error as error:
                    log.warning("copies of volumes are not looked after: %s", error)
                with trio.move_on_after(LOOK_S):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def _look(self, nursery: trio.Nursery) -> None:
        now_us, up = self._clock.now_us(), self._peers()
        actions: list[Keep | Drop] = []
        if self._news.is_set() or trio.current_time() > self._read_at + READ_S:
            self._news, self._read_at = trio.Event(), trio.current_time()
            actions += await self._read()
        await self._hear(up)
        versions = {volume: read_head(envelope)[0].version for volume, envelope in self._newest.items()}
        for action in [*actions, *self.copies.plan(versions, up, now_us)]:
            if action not in self._busy:
                self._busy.add(action)
                nursery.start_soon(self._do, action)
        if trio.current_time() > self._whole_at and up:
            self._whole_at = trio.current_time() + WHOLE_S
            for volume in self._newest:
                await self.mend(volume)

    async def _read(self) -> list[Drop]:
        """The newest heads that this node has signed: where nodes share a database, each looks after its own."""
        found = await self._state.transact(heads.newest)
        named = {volume: envelope for volume, (name, envelope) in found.items() if name}
        newest = {volume: envelope for volume, envelope in named.items() if read_head(envelope)[1] == self._us}
        gone = self.copies.deleted(self._newest.keys() - newest.keys())
        for drop in gone:
            self._told.pop(drop.volume, None)
        self._newest, self._known = newest, set(found)
        return gone

    async def _hear(self, up: list[str]) -> None:
        """Ask peers that came what they have: this node may have been away."""
        self._asked &= set(up)
        for peer in set(up) - self._asked:
            self._asked.add(peer)
            with suppress(Error):
                answer = await self._ask(peer, messages.AskKept(), ASK_TIMEOUT_S)
                if isinstance(answer, messages.VolumesKept):
                    self._note(peer, answer)

    def _note(self, peer: str, answer: messages.VolumesKept) -> None:
        have: dict[str, int] = {}
        for envelope in answer.envelopes:
            with suppress(EnvelopeError):
                head, signer = read_head(envelope)
                if signer != self._us:
                    continue
                self._told.setdefault(head.volume, {})[peer] = envelope
                if head.volume in self._newest:
                    have[head.volume] = head.version
        self.copies.heard(peer, have, self._clock.now_us())

    async def _do(self, action: Keep | Drop) -> None:
        peer, volume = action
        try:
            async with self._places:
                if isinstance(action, Drop):
                    await self._ask(peer, messages.DropVolume(volume), ASK_TIMEOUT_S)
                    self.copies.dropped(peer, volume)
                elif envelope := self._newest.get(volume):
                    answer = await self._ask(peer, messages.KeepVolume(envelope), COPY_TIMEOUT_S)
                    if isinstance(answer, messages.VolumeKept) and answer.volume == volume:
                        self.copies.kept(peer, volume, answer.version, self._clock.now_us())
                        self._wake.set()
        except Error as error:
            log.info("%s keeps no copy of a volume: %s", peer, error)
            self.copies.failed(peer, volume, self._clock.now_us())
        finally:
            self._busy.discard(action)

    async def mend(self, volume: str) -> None:
        """Take back from its copies what the store has lost of the newest version."""
        if envelope := self._newest.get(volume):
            image = read_head(envelope)[0].image
            try:
                if await self._images.fetcher.lacks(image):
                    log.warning("a volume lacks chunks here, and is fetched from its copies")
                    await self._images.fetch_from(image, self.sources(volume))
            except (Error, ImageStoreError) as error:
                log.warning("a volume cannot be mended: %s", error)

    async def _ask(self, peer: str, request: wire.Message, timeout_s: float) -> object:
        """The answer. Raises `potluck.errors.Error`."""
        try:
            stream = await self._transport.open(peer, VOLUMES_PROTOCOL)
        except TransportError as error:
            raise ConnectionError("The peer cannot be reached.", why=str(error)) from None
        answers: list[object] = []

        def take(message: object) -> None:
            if isinstance(message, messages.VolumesKept | messages.VolumeKept | messages.CopyRefused):
                answers.append(message)
                link.finish()

        link = StreamLink(stream, messages.FromKeeper, take, self._clock)
        link.post(request)
        why = ""
        with trio.move_on_after(timeout_s):
            why = await link.run()
        if not answers:
            raise ConnectionError("The peer did not answer.", why=why)
        if isinstance(answers[0], messages.CopyRefused):
            raise answers[0].failure.error()
        return answers[0]
