"""Who does what on the mesh: asked of each peer at once, for `potluck mesh status`; and told to those who may know."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import doings as messages
from potluck.wire.offer import FREE, Offer
from potluck_node.clock import Clock
from potluck_node.core.asks import WAIT_US
from potluck_node.provider import Provider
from potluck_node.transport.interface import Stream, Transport, TransportError

if TYPE_CHECKING:
    from potluck_node.node import Node

log = logging.getLogger("potluck.doings")

DOINGS_PROTOCOL = "/potluck/doings/1"
# A peer looks at its own tables and answers; one that takes longer is shown without. Seconds.
ANSWER_TIMEOUT_S = 3.0
AT_ONCE_MAX = 16
NOT_TOLD = "it tells members of its lab alone"


class DoingsDesk:
    """Tells members of a private mesh, nodes of a lab, and whom the owner trusts; nobody else."""

    def __init__(self, node: Node, transport: Transport, clock: Clock) -> None:
        self._node, self._transport, self._clock = node, transport, clock
        self._places = trio.CapacityLimiter(AT_ONCE_MAX)
        transport.handle(DOINGS_PROTOCOL, self.on_stream)

    # For peers

    async def on_stream(self, stream: Stream) -> None:
        """Answer one question."""
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            wire.decode(await stream.receive(), messages.AskDoings)
            known = self._may_know(stream.peer)
            await stream.send(wire.encode(self._own() if known else messages.Doings(problem=NOT_TOLD)))
        await stream.aclose()

    def _may_know(self, peer: str) -> bool:
        node = self._node
        is_member = node.membership is not None and node.membership.admits(peer)
        return is_member or bool(node.lab.admins) or node.levels.secrets(peer)

    def _own(self) -> messages.Doings:
        provider = self._node.provider
        return doings_of(provider, self._clock.now_us()) if provider else messages.Doings("lends nothing")

    # For clients

    async def answer(self, question: messages.AskMeshDoings) -> messages.MeshDoings:
        """Peers that do not answer are no error: the answer says so."""
        now_us, own = self._clock.now_us(), self._node.own_offer()
        offers = sorted(self._node.book.fresh(now_us), key=lambda offer: (offer.name, offer.peer))
        found: dict[str, messages.Doings] = {}
        async with trio.open_nursery() as nursery:
            for offer in offers[: messages.NODES_MAX - 1]:
                nursery.start_soon(self._ask, offer.peer, found)
        nodes = [_facts(offer, found[offer.peer]) for offer in offers if offer.peer in found]
        if own:
            nodes.insert(0, _facts(own, self._own()))
        names = {offer.peer: offer.name for offer in offers}
        names |= self._node.membership.names() if self._node.membership else {}
        names[self._node.key.peer] = self._node.settings.name
        return messages.MeshDoings(
            question.question, self._node.settings.mesh, tuple(nodes), names, max(0, len(offers) - len(found))
        )

    async def _ask(self, peer: str, found: dict[str, messages.Doings]) -> None:
        found[peer] = messages.Doings(problem=f"nothing came within {ANSWER_TIMEOUT_S:g} s")
        async with self._places:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                try:
                    stream = await self._transport.open(peer, DOINGS_PROTOCOL)
                    try:
                        await stream.send(wire.encode(messages.AskDoings()))
                        found[peer] = wire.decode(await stream.receive(), messages.Doings)
                    finally:
                        await stream.aclose()
                except (TransportError, RemoteProtocolError) as error:
                    found[peer] = messages.Doings(problem=f"it does not answer: {error}")


def doings_of(provider: Provider, now_us: int) -> messages.Doings:
    """What runs on this node, and who waits for room on it."""
    core = provider.core
    holders = core.gpus.holders()
    workers = (
        messages.Running(function, caller, state, now_us - since_us, len(holders[name].gpus) if name in holders else 0)
        for name, function, caller, state, since_us in core.workers()
    )
    waiting = (
        messages.Waiting(spec.name, caller, now_us - asked_us)
        for caller, (asked_us, spec) in core.asks.waiting.items()
        if now_us - asked_us < WAIT_US
    )
    return messages.Doings(
        f"paused: {core.paused}" if core.paused else "open",
        tuple(islice(workers, messages.WORKERS_MAX)),
        tuple(islice(waiting, messages.WAITING_MAX)),
        core.room.queued(),
    )


def _facts(offer: Offer, doings: messages.Doings) -> messages.NodeDoings:
    """No more than there can be, whatever a peer says."""
    doings = replace(
        doings, workers=doings.workers[: messages.WORKERS_MAX], waiting=doings.waiting[: messages.WAITING_MAX]
    )
    return messages.NodeDoings(
        offer.peer, offer.name, offer.labels, tuple(gpu.model for gpu in offer.gpus),
        sum(gpu.state == FREE for gpu in offer.gpus), offer.cpu_milli, offer.cpu_free_milli, doings,
    )  # fmt: skip
