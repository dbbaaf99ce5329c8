"""What the node tells its clients about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potluck import __version__
from potluck.wire import control
from potluck.wire.offer import SCORES_MAX
from potluck_node.core.offers import skew_text

if TYPE_CHECKING:
    from potluck_node.node import Node


def make_status(node: Node, question: int, now_us: int) -> control.Status:
    """Everything that a terminal shows, as of now."""
    offer = node.make_offer()
    settings = node.settings
    return control.Status(
        question=question,
        name=settings.name,
        peer=node.key.peer,
        version=__version__,
        mesh=settings.mesh,
        now_us=now_us,
        started_us=node.started_us,
        offering=offer is not None,
        paused=node.provider.core.paused if node.provider else "",
        tier=offer.tiers[0] if offer and offer.tiers else "",
        addresses=node.transport.addresses(),
        cpu_milli=offer.cpu_milli if offer else 0,
        cpu_free_milli=offer.cpu_free_milli if offer else 0,
        memory_mib=offer.memory_mib if offer else 0,
        memory_free_mib=offer.memory_free_mib if offer else 0,
        gpus=offer.gpus if offer else (),
        workers=_workers(node),
        calls=_calls(node, now_us),
        peers=_peers(node, now_us),
        accounts=_accounts(node),
        entries=node.journal.head()[0],
        images=len(node.images.held()),
        store_bytes=node.images.store.bytes_about,
        warning=node.warning,
        embedded=node.embedded,
        mesh_id=node.membership.file.id if node.membership else "",
        scores=node.bench.scores(),
        policy=node.policy.reasons,
    )


def _calls(node: Node, now_us: int) -> tuple[control.CallStatus, ...]:
    core = node.caller.core
    return tuple(
        control.CallStatus(name, function, inputs, waiting, note, core.would(name, now_us), app)
        for name, function, inputs, waiting, note, app in core.calls()
    )


def _workers(node: Node) -> tuple[control.WorkerStatus, ...]:
    if node.provider is None:
        return ()
    return tuple(control.WorkerStatus(*worker) for worker in node.provider.core.workers())


def _peers(node: Node, now_us: int) -> tuple[control.PeerStatus, ...]:
    connected = set(node.transport.peers())
    known = [
        control.PeerStatus(
            peer=offer.peer,
            name=offer.name,
            state=offer.state,
            connected=offer.peer in connected,
            slots_free=offer.slots_free,
            cpu_milli=offer.cpu_milli,
            memory_mib=offer.memory_mib,
            gpus=tuple(gpu.model for gpu in offer.gpus),
            rtt_us=node.caller.core.rtt_us.get(offer.peer, 0),
            note=node.caller.core.reputation.banned(offer.peer, now_us),
            entries=node.journal_sync.entries(offer.peer),
            scores=offer.scores[:SCORES_MAX],
            images=len(offer.images),
            warm=len(offer.warm),
        )
        for offer in node.book.fresh(now_us)
    ]
    names = {peer.peer for peer in known}
    skewed = [_silent(peer, peer in connected, skew_text(skew)) for peer, skew in node.book.skewed.items()]
    banned = [_silent(peer, peer in connected, why) for peer, why in sorted(node.book.banned.items())]
    rest = connected - names - set(node.book.skewed) - set(node.book.banned)
    entries = node.journal_sync.entries
    others = [_silent(peer, True, "offers nothing", entries(peer)) for peer in sorted(rest)]
    return (*known, *skewed, *banned, *others)


def _silent(peer: str, connected: bool, note: str, entries: int = 0) -> control.PeerStatus:
    return control.PeerStatus(peer, peer[-8:], "unused", connected, 0, 0, 0, note=note, entries=entries)


def _accounts(node: Node) -> tuple[control.AccountStatus, ...]:
    return tuple(
        control.AccountStatus(each.peer, each.given_us, each.used_us, each.inputs_given, each.inputs_used)
        for each in node.journal.accounts.by_peer.values()
    )
