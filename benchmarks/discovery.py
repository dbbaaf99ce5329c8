"""How fast offers are known: a mesh of real nodes in processes, and two peers in this one that tell and hear. JSON.

"published" is from a change of an offer to its arrival in the book of another peer, with the 0.2 s for which a node
waits so that a burst of changes is told once; "cold" the same of a warm worker that is gone. "dht" is a lookup of one
peer's offer in the DHT; "book" is placement's choice among all that is known; "joined" from nothing to the first offer.
The floor is a round trip on a stream that is open already. "simulated" runs the same cores for a thousand nodes with
sessions of 20 minutes, honest and with 30 % that hand nothing on and serve nobody.
Run: python benchmarks/discovery.py [nodes [changes]], or: python benchmarks/discovery.py simulated [minutes [seeds]]
"""

from __future__ import annotations

import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio
from _common import node, report, status

from potluck import wire
from potluck.wire import FunctionSpec, Resources
from potluck.wire.offer import GpuOffer, Offer
from potluck_ledger.keys import PrivateKey
from potluck_netsim.offers import Mesh
from potluck_netsim.offers import run as run_simulated
from potluck_node.clock import SystemClock
from potluck_node.core.offers import OFFER_LIFE_US, OfferBook, rank_offer
from potluck_node.core.placement import Candidate, choose
from potluck_node.discovery import Discovery
from potluck_node.transport.interface import Stream
from potluck_node.transport.libp2p import Libp2pTransport

MESH, ECHO, FUNCTION = "local", "/potluck/bench/echo/1", "f"
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
PATIENCE_S, QUIET_S, ROUND_TRIPS, JOINS, LOOKUPS = 120, 10, 200, 5, 100
CLOCK = SystemClock()


class Peer:
    """A transport, an offer that can be changed, and a book."""

    def __init__(self, *bootstrap: str) -> None:
        self.key = PrivateKey.generate()
        self.book = OfferBook(MESH, self.key.peer)
        self.warm: tuple[str, ...] = ()
        self.sequence = 0
        self.transport = Libp2pTransport(self.key, LISTEN, bootstrap, self._rank)
        self.discovery = Discovery(self.transport, self.key, self.book, CLOCK, self._offer)
        self.news = trio.Event()
        self.discovery.changed = self._changed
        self.transport.handle(ECHO, _echo)

    def _rank(self, key: str, value: bytes) -> int | None:
        return rank_offer(key, value, CLOCK.now_us())

    def _offer(self) -> Offer:
        now_us, peer = CLOCK.now_us(), self.key.peer
        self.sequence = max(self.sequence + 1, now_us)
        room = {"cpu_milli": 1000, "cpu_free_milli": 1000, "memory_mib": 1024, "memory_free_mib": 1024, "slots_free": 1}
        times = {"sequence": self.sequence, "issued_us": now_us, "expires_us": now_us + OFFER_LIFE_US}
        return Offer(peer, "bench", MESH, **times, **room, state="open", warm=self.warm)

    def _changed(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not holds():
                with trio.move_on_after(1):
                    await self.news.wait()


async def _echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


@asynccontextmanager
async def on_mesh(*bootstrap: str) -> AsyncIterator[Peer]:
    peer = Peer(*bootstrap)
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.transport.serve)
        await nursery.start(peer.discovery.serve)
        yield peer
        nursery.cancel_scope.cancel()


async def published_ms(teller: Peer, hearer: Peer, changes: int, dice: random.Random) -> dict[str, list[float]]:
    """Each change at a random moment, so that it meets the repetition of offers anywhere."""
    taken: dict[str, list[float]] = {"published": [], "cold": []}
    for number in range(changes):
        teller.warm = () if teller.warm else (FUNCTION,)
        start = time.perf_counter()
        teller.discovery.touch()
        await hearer.until(lambda: _warm_at(hearer, teller) == teller.warm)
        taken["published" if number % 2 == 0 else "cold"].append((time.perf_counter() - start) * 1000)
        await trio.sleep(dice.random())
    return taken


def _warm_at(hearer: Peer, teller: Peer) -> tuple[str, ...]:
    offer = hearer.book.offers.get(teller.key.peer)
    return offer.warm if offer else ("unknown",)


async def dht_ms(hearer: Peer, peers: list[str], dice: random.Random) -> tuple[list[float], int]:
    taken, found = [], 0
    for _ in range(LOOKUPS):
        start = time.perf_counter()
        record = await hearer.transport.get_record(f"offer/{dice.choice(peers)}")
        taken.append((time.perf_counter() - start) * 1000)
        found += record is not None
    return taken, found


def book_ms(hearer: Peer, dice: random.Random) -> list[float]:
    spec = FunctionSpec("bench", FUNCTION, "00" * 32, "3.11", resources=Resources(cpu_milli=100, memory_mib=64))
    taken = []
    for _ in range(LOOKUPS):
        start = time.perf_counter()
        chosen = choose([Candidate(offer) for offer in hearer.book.fresh(CLOCK.now_us())], FUNCTION, spec, dice)
        taken.append((time.perf_counter() - start) * 1000)
        assert chosen
    return taken


async def round_trip_ms(hearer: Peer, teller: Peer) -> list[float]:
    hearer.transport.learn(teller.key.peer, teller.transport.addresses())
    stream = await hearer.transport.open(teller.key.peer, ECHO)
    taken = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        await stream.send(b"x" * 100)
        await stream.receive()
        taken.append((time.perf_counter() - start) * 1000)
    await stream.aclose()
    return taken


async def joined_ms(bootstrap: str) -> float:
    start = time.perf_counter()
    async with on_mesh(bootstrap) as peer:
        await peer.until(lambda: peer.book.offers)
        return (time.perf_counter() - start) * 1000


def spread(taken: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(taken, n=100)
    return {"p50_ms": round(statistics.median(taken), 3), "p95_ms": round(cuts[94], 3), "p99_ms": round(cuts[98], 3)}


async def measure(addresses: list[str], changes: int) -> dict[str, Any]:
    dice = random.Random(7)
    async with on_mesh(addresses[0]) as teller, on_mesh(addresses[-1]) as hearer:
        start = time.perf_counter()
        await hearer.until(lambda: len(hearer.book.offers) > len(addresses))
        all_known_s = time.perf_counter() - start
        await trio.sleep(QUIET_S)
        told = await published_ms(teller, hearer, changes, dice)
        lookups, found = await dht_ms(hearer, list(hearer.book.offers), dice)
        floor = spread(await round_trip_ms(hearer, teller))
        figures = {name: spread(taken) for name, taken in told.items()}
        figures |= {"dht": spread(lookups), "book": spread(book_ms(hearer, dice)), "floor_round_trip": floor}
        joined = statistics.median([await joined_ms(dice.choice(addresses)) for _ in range(JOINS)])
    ratio = figures["published"]["p50_ms"] / floor["p50_ms"]
    return figures | {
        "all_offers_known_s": round(all_known_s, 1),
        "joined_ms": round(joined),
        "dht_found": f"{found} of {LOOKUPS}",
        "published_over_round_trip": round(ratio, 1),
    }


def simulated(minutes: int = 20, seeds: int = 3) -> None:
    kinds = {"honest": {}, "hostile": {"hostile_milli": 300}, "liars": {"hostile_milli": 300, "lying_milli": 1000}}
    figures: dict[str, Any] = {
        name: [run_simulated(Mesh(seed=seed, minutes=minutes, **options)) for seed in range(1, seeds + 1)]
        for name, options in kinds.items()
    }
    report("discovery simulated", {"nodes": 1000, "minutes": minutes, "book_mib": book_mib(), **figures})


def book_mib() -> float:
    """What a book with the offers of a thousand nodes takes: two GPUs, ten images and twenty warm functions each."""
    book, now_us = OfferBook(MESH, "us"), CLOCK.now_us()
    tracemalloc.start()
    for number in range(1000):
        rich = {
            "gpus": tuple(GpuOffer(f"GPU-{number}-{each}", "NVIDIA A10G", 23028, 22000) for each in range(2)),
            "images": tuple(f"{number:032x}{each:032x}" for each in range(10)),
            "warm": tuple(f"{each:032x}{number:032x}" for each in range(20)),
        }
        times = {"sequence": 1, "issued_us": now_us, "expires_us": now_us + OFFER_LIFE_US}
        book.add(wire.decode(wire.encode(Offer(f"peer-{number}", "n", MESH, **times, **rich)), Offer), now_us)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(taken / (1 << 20), 1)


def main(nodes: int = 30, changes: int = 100) -> None:
    with ExitStack() as stack:
        addresses: list[str] = []
        for number in range(nodes):
            # Each knows one earlier node, as volunteers do who join by a friend's address.
            known = ("--bootstrap", addresses[random.Random(number).randrange(number)]) if number else ()
            env = stack.enter_context(node("--name", f"n{number}", "--cpus", "1", "--memory-mib", "256", *known))
            addresses.append(status(env)["addresses"][0])
        figures = trio.run(partial(measure, addresses, changes))
    report("discovery", {"nodes": nodes, **figures})


if __name__ == "__main__":
    if sys.argv[1:2] == ["simulated"]:
        simulated(*(int(argument) for argument in sys.argv[2:]))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
