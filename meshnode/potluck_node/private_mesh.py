"""What membership changes in a node: whose offers are kept, and whose leases are served."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from potluck_ledger.membership import ADMIN, CALLER
from potluck_node.config import Settings
from potluck_node.core import events as ev
from potluck_node.core.levels import Levels
from potluck_node.membership import Membership
from potluck_node.transport.interface import Stream, StreamHandler

if TYPE_CHECKING:
    from potluck_node.node import Node

log = logging.getLogger("potluck.mesh")


def wire(node: Node, membership: Membership) -> None:
    """Have the node's parts ask who is a member."""

    def changed() -> None:
        for peer in [peer for peer in node.book.offers if not node.book.may_offer(peer)]:
            node.book.forget(peer)
        node.caller.submit(ev.OffersChanged())

    node.lab_sync.is_admin = lambda peer: ADMIN in membership.roles(peer)
    membership.transport, node.state.members = node.transport, membership.ask
    membership.changed, node.book.may_offer = changed, membership.may_offer


def levels(us: str, settings: Settings, membership: Membership | None) -> Levels:
    """How far each peer is trusted here."""
    return Levels(
        us,
        settings.trust,
        settings.trust_levels,
        (lambda peer: membership.member(peer) is not None) if membership else (lambda peer: False),
        settings.strangers_sandbox,
        settings.verify_strangers,
    )


def for_callers(membership: Membership | None, handler: StreamHandler) -> StreamHandler:
    """Serves streams of whoever may call."""

    async def serve(stream: Stream) -> None:
        if membership is None or CALLER in membership.roles(stream.peer):
            await handler(stream)
        else:
            log.info("%s asks for a lease, and is no caller of this mesh", stream.peer)

    return serve
