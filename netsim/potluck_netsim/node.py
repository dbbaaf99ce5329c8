"""A simulated node: the node's own cores, and as little around them as makes them run on virtual time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from potluck.wire import PROTOCOL
from potluck.wire.offer import Offer
from potluck_ledger.journal import Journal
from potluck_ledger.keys import PrivateKey
from potluck_netsim.caller import SimCaller
from potluck_netsim.disk import Disk, Then, Write
from potluck_netsim.facts import NodeDied, NodeFroze, Observed, StillBanned
from potluck_netsim.gossip import Ear
from potluck_netsim.network import End, Network
from potluck_netsim.provider import DISK_FULL, SimProvider
from potluck_netsim.sites import LAN, Site
from potluck_netsim.world import START_US, Do
from potluck_node.core import events as ev
from potluck_node.core import provider_events as pev
from potluck_node.core.gpus import Gpu
from potluck_node.core.offers import OfferBook, repeat_us
from potluck_node.core.pools import Capacity
from potluck_node.discovery import SETTLE_S
from potluck_node.link import LocalLink

MESH = "lab"
# Why a node takes no work that an owner without a policy has stopped.
BY_HAND = "the owner is back"
SETTLE_US = int(SETTLE_S * 1e6)
# What has arrived is taken this often by a node that listens: so much for each that tells.
HEAR_US, HEAR_MIN_US, HEAR_MAX_US = 1_000, 100_000, 1_000_000


def _nothing() -> None: ...


class Node:
    """Its key, images and sequence outlive a death; its cores, book, calls and leases do not."""

    make_caller: type[SimCaller] = SimCaller
    make_provider: type[SimProvider] = SimProvider

    def __init__(
        self,
        network: Network,
        number: int,
        capacity: Capacity,
        slow: int,
        offers: bool,
        gpus: int = 0,
        site: Site = LAN,
        skew_us: int = 0,
        drift_ppm: int = 0,
    ) -> None:
        # What it speaks with others about leases.
        self.protocol = PROTOCOL
        self.number, self.site, self._skew_us, self._drift_ppm = number, site, skew_us, drift_ppm
        self.network, self.world, self.faults = network, network.world, network.faults
        self.name, self.capacity, self.slow, self._offers = f"node-{number:02d}", capacity, slow, offers
        self.gpus = tuple(Gpu(f"{self.name}-gpu{each}", "NVIDIA A10G", 23028, 22700) for each in range(gpus))
        self.key = PrivateKey(self.world.dice.randbytes(32))
        self.peer = self.key.peer
        self._journal: Journal | None = None
        self.images: dict[str, None] = {}
        self.life, self.alive, self.unplugged, self.frozen_until_us, self.born_us = 0, False, False, 0, 0
        self._sequence = self._telling = self._up_us = 0
        # Called whenever a life begins.
        self.on_born: Do = _nothing
        self.power_fails: Do = partial(self.die, False)
        network.add(self)
        self.be_born()

    @property
    def now_us(self) -> int:
        """By its own clock."""
        real_us = self.world.now_us
        return real_us + self._skew_us + (real_us - START_US) * self._drift_ppm // 1_000_000

    @property
    def journal(self) -> Journal:
        """On a disk that outlives it; in memory, since nothing else of a disk matters here. Made when it is needed, so
        that a node which does nothing costs little."""
        if self._journal is None:
            connect = partial(sqlite3.connect, isolation_level=None)
            self._journal = Journal(Path(":memory:"), self.key, lambda path: connect(path))
        return self._journal

    @property
    def has_books(self) -> bool:
        return self._journal is not None

    # Life and death

    def be_born(self) -> None:
        self.life += 1
        self.alive, self.unplugged, self.frozen_until_us, self.born_us = True, False, 0, self.world.now_us
        for lease in self.journal.held() if self._journal else ():
            self.journal.release(lease, self.now_us)
        self.book = OfferBook(MESH, self.peer)
        self.caller = self.make_caller(self)
        self.provider = self.make_provider(self) if self._offers else None
        self._settling = self._listens = False
        self.disk = Disk(self)
        self.world.tell(self.name, "is up")
        if self.provider:
            self.provider.submit(pev.GpusSeen(self.gpus))
        self._tell_offer(self._telling)
        self.on_born()

    def die(self, unplugged: bool) -> None:
        self.world.tell(self.name, "is unplugged" if unplugged else "is killed")
        self._up_us = self.up_us()
        self.alive, self.unplugged = False, unplugged
        self.network.died(self)
        self.network.gossip.leave(self)
        if self.provider:
            self.provider.machine.stop()
        self.world.fact(NodeDied(self.name))

    def up_us(self) -> int:
        """How long it has been there, in all its lives."""
        return self._up_us + (self.world.now_us - self.born_us if self.alive else 0)

    def freeze(self, for_us: int) -> None:
        self.world.tell(self.name, f"freezes for {for_us / 1e6:.1f} s")
        self.frozen_until_us = self.world.now_us + for_us
        self.network.froze(self)
        self.world.fact(NodeFroze(self.name))

    def pause(self, now: bool) -> None:
        if self.provider:
            self.provider.submit(pev.Paused(BY_HAND, now))

    def resume(self) -> None:
        if self.provider and self.provider.core.paused == BY_HAND:
            self.provider.submit(pev.Resumed())

    def later(self, delay_us: int, do: Do) -> None:
        self.world.after(delay_us, partial(self.in_life, self.life, do))

    def in_life(self, life: int, do: Do) -> None:
        if life != self.life or not self.alive:
            return
        if self.world.now_us < self.frozen_until_us:
            self.world.at(self.frozen_until_us, partial(self.in_life, life, do))
        else:
            do()

    def keep(self, write: Write, then: Then) -> None:
        self.disk.keep(write, then)

    def fill_disk(self, for_us: int) -> None:
        """For a while; then somebody makes room, and lends again."""
        self.disk.fill(for_us)
        self.later(for_us, self._mended)

    def _mended(self) -> None:
        if self.provider and self.provider.core.paused == DISK_FULL:
            self.provider.submit(pev.Resumed())

    def lose_gpu(self, for_us: int) -> None:
        """One of them falls off the bus, and comes back."""
        if self.provider and self.gpus:
            lost = self.gpus[0]
            self.provider.submit(pev.GpusSeen((replace(lost, state="lost: it fell off the bus"), *self.gpus[1:])))
            self.later(for_us, partial(self.provider.submit, pev.GpusSeen(self.gpus)))

    def observed(self) -> Observed:
        """How much it holds."""
        core = self.provider.core if self.provider else None
        waiting = sum(len(pool.queue) for pool in core._pools.values()) if core else 0
        given, pools = (len(self.provider.held), len(core._pools)) if self.provider and core else (0, 0)
        return Observed(self.name, len(self.caller.leases), given, pools, waiting, len(self.book.offers))

    def still_banned(self) -> Iterator[StillBanned]:
        """With whom nothing is done any more, though it is time."""
        now_us, core = self.now_us, self.caller.core
        for peer in self.network.hosts:
            why = self.book.banned.get(peer) or core.reputation.banned(peer, now_us)
            if left_us := core._hiring.bans.left_us(peer, now_us):
                why = why or f"it failed, and is avoided for {left_us / 1e6:.0f} s more"
            if why:
                yield StillBanned(self.name, peer, why)

    def leftovers(self) -> Iterator[str]:
        """What a quiet node should not have any more, in words."""
        yield from (f"lease {lease}" for lease in self.caller.leases)
        yield from (f"call {call[0]}" for call in self.caller.core.calls())
        yield from (f"a lease with {lease[1]}" for lease in self.caller.core.leases())
        if self.caller.core.wake_us is not None:
            yield "a timer of its calls"
        if self.provider:
            yield from (f"provided lease {lease}" for lease in self.provider.held)
            yield from (f"worker {worker[0]}" for worker in self.provider.core.workers())
            if self.provider.core.wake_us is not None:
                yield "a timer of its pools"

    # Leases

    def accept(self, end: End) -> None:
        if self.provider:
            self.provider.accept(end)
        else:
            end.finish()

    def open_local(self, lease: str) -> LocalLink:
        assert self.provider
        return self.provider.open_local(lease)

    # Offers, as the node's `node.py` makes them and its `discovery.py` tells them

    def make_offer(self) -> Offer | None:
        if self.provider is None:
            return None
        core, now_us = self.provider.core, self.now_us
        free, idle = core.room.free(), core.room.idle()
        self._sequence = max(self._sequence + 1, now_us)
        return Offer(
            peer=self.peer,
            name=self.name,
            mesh=MESH,
            sequence=self._sequence,
            issued_us=now_us,
            expires_us=now_us + 4 * repeat_us(self.network.gossip.voices),
            state="paused" if core.paused else "open",
            cpu_milli=self.capacity.cpu_milli,
            cpu_free_milli=free[0] + idle[0],
            memory_mib=self.capacity.memory_mib,
            memory_free_mib=free[1] + idle[1],
            slots_free=(free[0] + idle[0]) // 1000,
            gpus=core.gpus.offers(core.room.idle_workers()),
            images=tuple(self.images),
            warm=core.warm(),
        )

    def offer_changed(self) -> None:
        if not self._settling:
            self._settling = True
            self.later(SETTLE_US, partial(self._tell_offer, self._telling))
        self.caller.submit(ev.OffersChanged())

    def _tell_offer(self, telling: int) -> None:
        """Tell it, unless somebody else has meanwhile, and again after a while."""
        if telling != self._telling:
            return
        self._telling, self._settling = self._telling + 1, False
        offer = self.make_offer()
        if offer:
            self.network.gossip.tell(self, self.key, offer, self.world.now_us)
            self.later(repeat_us(self.network.gossip.voices), partial(self._tell_offer, self._telling))

    def listen(self) -> None:
        if not self._listens:
            self._listens = True
            self._hear(self.network.gossip.listen(self, self.world.now_us))

    def _hear(self, ear: Ear) -> None:
        came = [self.book.add(word.read(), self.now_us) is None for word in ear.take(self.world.now_us)]
        if any(came):
            self.caller.submit(ev.OffersChanged())
        if self.caller.calls or self.caller.leases:
            every_us = self.network.gossip.voices * HEAR_US
            self.later(min(max(every_us, HEAR_MIN_US), HEAR_MAX_US), partial(self._hear, ear))
        else:
            self._listens = False
            self.network.gossip.leave(self)
            self.book.offers.clear()
