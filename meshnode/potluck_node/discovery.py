"""Finding and being found: our offer goes out by gossip and into the DHT; others' offers come in by both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from potluck.errors import RemoteProtocolError
from potluck.wire.offer import Offer
from potluck_ledger.keys import PrivateKey
from potluck_node.clock import Clock
from potluck_node.core.offers import RECORD_EVERY, OfferBook, read_offer, repeat_us, sign_offer
from potluck_node.transport.interface import Transport

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.discovery")

# A change is told at once, but a burst of changes only once in this time, seconds.
SETTLE_S = 0.2
# How often the DHT is searched for peers of the mesh, seconds: soon while nobody is known, later to find the rest.
SEARCH_FIRST_S, SEARCH_S = 1.0, 30.0
# The mesh's provider record is renewed long before py-libp2p drops it (48 h), and soon after the first peers came.
PROVIDE_S = 60.0
# py-libp2p's DHT takes at most ten provider records from a peer in ten seconds, and silently drops the rest.
PROVIDES_MAX, PROVIDE_PAUSE_S = 8, 10.0


class Discovery:
    """`make_offer` gives the current offer, or None for a node that offers nothing; `changed` is called on news."""

    def __init__(
        self,
        transport: Transport,
        key: PrivateKey,
        book: OfferBook,
        clock: Clock,
        make_offer: Callable[[], Offer | None],
    ) -> None:
        self._transport, self._key, self._book, self._clock, self._make = transport, key, book, clock, make_offer
        self._dirty = trio.Event()
        self.changed: Callable[[], None] = lambda: None
        self.provided: Callable[[], tuple[str, ...]] = tuple

    @property
    def _topic(self) -> str:
        return f"/potluck/{self._book.mesh}/offers/1"

    @property
    def _mesh_key(self) -> str:
        return f"mesh/{self._book.mesh}"

    def touch(self) -> None:
        """Our offer changed: tell it now."""
        self._dirty.set()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Advertise and listen until cancelled. The transport must be serving."""
        await self._transport.subscribe(self._topic, self._heard)
        self._transport.moved = self.touch
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._advertise)
            nursery.start_soon(self._record)
            nursery.start_soon(self._provide)
            nursery.start_soon(self._search)
            task_status.started()

    async def _heard(self, _sender: str, data: bytes) -> None:
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            offer = read_offer(data)
        except RemoteProtocolError as error:
            log.info("ignoring an offer: %s", error)
            return
        known = self._book.offers.get(offer.peer)
        rejected = self._book.add(offer, self._clock.now_us())
        if rejected:
            log.debug("not using an offer of %s: %s", offer.name, rejected.reason)
            return
        if offer.addresses and (known is None or known.addresses != offer.addresses):
            self._transport.learn(offer.peer, offer.addresses)
        self.changed()

    async def _advertise(self) -> None:
        while True:
            offer, every_us = self._make(), repeat_us(len(self._book.offers))
            if offer:
                await self._transport.publish(self._topic, self._signed(offer, 4 * every_us))
            with trio.move_on_after(every_us / 1e6):
                await self._dirty.wait()
                await trio.sleep(SETTLE_S)
            self._dirty = trio.Event()

    async def _record(self) -> None:
        """Have a copy in the DHT: from the first peer on."""
        while True:
            every_us = repeat_us(len(self._book.offers))
            # To make an offer is the dearest thing that an idle node does.
            offer = self._make() if self._transport.peers() else None
            if offer:
                await self._transport.put_record(f"offer/{offer.peer}", self._signed(offer, 8 * every_us))
                await trio.sleep(RECORD_EVERY * every_us / 1e6)
            else:
                await trio.sleep(SEARCH_FIRST_S)

    def _signed(self, offer: Offer, life_us: int) -> bytes:
        return sign_offer(self._key, replace(offer, expires_us=offer.issued_us + life_us))

    async def _provide(self) -> None:
        """Stand in the DHT under the mesh's key, and under the keys of our images, so that others find us without
        any gossip: at once when a key or a peer is new, and again long before the records lapse."""
        done: dict[str, float] = {}
        peers: tuple[str, ...] = ()
        while True:
            if self._transport.peers() != peers:
                if not peers:
                    # Nobody heard what we told until now.
                    self.touch()
                peers, done = self._transport.peers(), {}
            due = [key for key in (self._mesh_key, *self.provided()) if self._lapsed(done, key)] if peers else []
            if self._mesh_key in due and not self._make():
                due.remove(self._mesh_key)
            for key in due[:PROVIDES_MAX]:
                await self._transport.provide(key)
                done[key] = trio.current_time()
            await trio.sleep(SEARCH_FIRST_S if len(due) <= PROVIDES_MAX else PROVIDE_PAUSE_S)

    def _lapsed(self, done: Mapping[str, float], key: str) -> bool:
        return trio.current_time() - done.get(key, -PROVIDE_S) >= PROVIDE_S

    async def _search(self) -> None:
        while True:
            for peer in await self._transport.find_providers(self._mesh_key):
                if peer != self._key.peer and peer not in self._book.offers:
                    data = await self._transport.get_record(f"offer/{peer}")
                    if data:
                        self._take(data)
            await trio.sleep(SEARCH_S if self._book.offers else SEARCH_FIRST_S)
