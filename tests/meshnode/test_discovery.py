"""How soon a node is known that comes to a mesh."""

import trio
from tests.meshnode.clocks import TrioClock

from potluck.wire.offer import Offer
from potluck_ledger.keys import PrivateKey
from potluck_node.core.offers import OfferBook, rank_offer
from potluck_node.discovery import SEARCH_FIRST_S, SETTLE_S, Discovery
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport

MESH = "lab"


class Peer:
    def __init__(self, network, number, bootstrap=()):
        self.key, self.clock = PrivateKey(bytes([number]) * 32), TrioClock()
        self.book = OfferBook(MESH, self.key.peer)
        addresses = [f"/memory/p2p/{peer.key.peer}" for peer in bootstrap]
        self.transport = MemoryTransport(network, self.key.peer, self.rank, addresses)
        self.discovery = Discovery(self.transport, self.key, self.book, self.clock, self.offer)

    def rank(self, key, value):
        return rank_offer(key, value, self.clock.now_us())

    def offer(self):
        now_us = self.clock.now_us()
        return Offer(self.key.peer, self.key.peer[-4:], MESH, now_us + 1, now_us, now_us + 1)

    async def serve(self, *, task_status=trio.TASK_STATUS_IGNORED):
        async with trio.open_nursery() as nursery:
            await nursery.start(self.transport.serve)
            await nursery.start(self.discovery.serve)
            task_status.started()

    def knows(self, other):
        return other.key.peer in self.book.offers


async def test_who_comes_later_is_known_as_soon_as_it_has_a_connection(autojump_clock, nursery):
    """What it tells first is lost, as nobody is connected yet; and who knows somebody does not search any more."""
    network = MemoryNetwork(delay_s=0.02)
    first = Peer(network, 1)
    await nursery.start(first.serve)
    second = Peer(network, 2, [first])
    await nursery.start(second.serve)
    await trio.sleep(20)
    assert first.knows(second)
    third = Peer(network, 3, [first])
    await nursery.start(third.serve)
    await trio.sleep(SEARCH_FIRST_S + SETTLE_S + 0.2)
    assert first.knows(third)
    assert second.knows(third)
