"""Records and providers in the mesh's own Kademlia DHT. Everything is best effort and bounded in time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.records.validator import NamespacedValidator, Validator
from libp2p.tools.anyio_service import background_trio_service

from potluck_node.transport.interface import RecordRank

log = logging.getLogger("potluck.transport")

# One DHT operation, seconds. The library's lookups alone may take 30 s and more when peers have left.
DHT_TIMEOUT_S = 8.0
# One peer's answer within it.
QUERY_TIMEOUT_S = 3.0

# A record: an offer of at most 16 KiB with its envelope, or a journal head. Larger ones are refused unread.
RECORD_BYTES_MAX = 64 << 10

# Peers asked at once and per lookup (Kademlia's k).
LOOKUP_PEERS_MAX = 20

NAMESPACE = "potluck"
_PREFIX = f"/{NAMESPACE}/"


class RankValidator(Validator):  # type: ignore[misc]
    """Our record rule in the library's words. It is asked when a record arrives, and again when it is read."""

    def __init__(self, rank: RecordRank) -> None:
        self._rank = rank

    def rank(self, key: str, value: bytes) -> int | None:
        if not key.startswith(_PREFIX) or len(value) > RECORD_BYTES_MAX:
            return None
        return self._rank(key.removeprefix(_PREFIX), value)

    def validate(self, key: str, value: bytes) -> None:
        if self.rank(key, value) is None:
            raise ValueError(f"the record under {key} is invalid, expired or too large")

    def select(self, key: str, values: list[bytes]) -> int:
        ranks = [self.rank(key, value) for value in values]
        best = max((rank for rank in ranks if rank is not None), default=None)
        if best is None:
            raise ValueError(f"no valid record under {key}")
        return ranks.index(best)


class Records:
    """The DHT of one host."""

    def __init__(self, host: Any, rank: RecordRank) -> None:
        self._validator = RankValidator(rank)
        namespaces = NamespacedValidator({NAMESPACE: self._validator}, strict_validation=True)
        self._dht = KadDHT(host, DHTMode.SERVER, validator=namespaces, validator_changed=True, strict_validation=True)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        async with background_trio_service(self._dht):
            yield

    async def connected(self, peer: Any) -> None:
        """Consider a peer for the routing table; the library only adds those that ask us first."""
        await self._dht.add_peer(peer)

    async def put(self, key: str, value: bytes) -> None:
        """Store a record here and at the closest peers. An invalid one is logged and dropped."""
        path = _PREFIX + key
        if self._validator.rank(path, value) is None:
            log.warning("not published: our own record under %s is invalid, expired or over 64 KiB", key)
            return
        self._keep(path, value)
        best = self._dht.value_store.get(path.encode()).value
        await self._ask(path.encode(), lambda peer: self._dht.value_store._store_at_peer(peer, path.encode(), best))

    def _keep(self, path: str, value: bytes) -> None:
        held = self._dht.value_store.get(path.encode())
        if held is None or self._better(path, value, held.value):
            self._dht.value_store.put(path.encode(), value)

    def _better(self, path: str, value: bytes, held: bytes) -> bool:
        rank, other = self._validator.rank(path, value), self._validator.rank(path, held)
        return rank is not None and (other is None or rank > other)

    async def get(self, key: str) -> bytes | None:
        """The best valid record. (The library returns its local copy, however old, without asking anybody.)"""
        path = _PREFIX + key
        held = self._dht.value_store.get(path.encode())
        values = [held.value] if held is not None else []

        async def ask(peer: Any) -> None:
            found = await self._dht.value_store._get_from_peer(peer, path.encode())
            if isinstance(found, bytes):
                values.append(found)

        await self._ask(path.encode(), ask)
        valid = [(rank, value) for value in values if (rank := self._validator.rank(path, value)) is not None]
        return max(valid)[1] if valid else None

    async def provide(self, key: str) -> None:
        """Announce ourselves under the key. Peers accept ten announcements per ten seconds from one peer and
        drop the rest silently; they keep one for 48 hours, so that it says "had", not "has".
        """
        with trio.move_on_after(DHT_TIMEOUT_S):
            await self._dht.provider_store.provide(_digest(key))

    async def find_providers(self, key: str) -> dict[str, tuple[str, ...]]:
        """Peers that announced the key, with their addresses. (The library is content with what it knows
        itself.)
        """
        digest = _digest(key)
        store = self._dht.provider_store
        found = list(store.get_providers(digest))

        async def ask(peer: Any) -> None:
            providers, _ = await store._get_providers_from_peer_with_closers(peer, digest)
            found.extend(providers)

        await self._ask(digest, ask)
        return {str(info.peer_id): tuple(str(address) for address in info.addrs) for info in found}

    async def _ask(self, key: bytes, question: Callable[[Any], Awaitable[object]]) -> None:
        """Put a question to the peers closest to the key, all at once, within `DHT_TIMEOUT_S`."""

        async def ask(peer: Any) -> None:
            try:
                with trio.move_on_after(QUERY_TIMEOUT_S):
                    await question(peer)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one peer, the others answer
                log.debug("DHT peer %s: %r", peer, error)

        with trio.move_on_after(DHT_TIMEOUT_S):
            closest = await self._dht.peer_routing.find_closest_peers_network(key, LOOKUP_PEERS_MAX)
            async with trio.open_nursery() as nursery:
                for peer in closest:
                    if peer != self._dht.local_peer_id:
                        nursery.start_soon(ask, peer)


def _digest(key: str) -> bytes:
    """The key as a SHA-256 multihash, which is what provider records are filed under."""
    return b"\x12\x20" + hashlib.sha256((_PREFIX + key).encode()).digest()
