"""The part of a node's offer that never changes."""

from __future__ import annotations

from potluck import __version__
from potluck.wire.offer import Offer
from potluck_node import machine
from potluck_node.config import Settings


def plain_offer(peer: str, settings: Settings, tiers: tuple[str, ...]) -> Offer:
    """What the owner set, and what this machine is."""
    return Offer(
        peer=peer,
        name=settings.name,
        mesh=settings.mesh,
        sequence=0,
        issued_us=0,
        expires_us=0,
        version=__version__,
        machine=machine.machine(),
        cpu_milli=round(settings.cpus * 1000),
        memory_mib=settings.memory_mib,
        tiers=tiers,
        region=settings.region,
        labels=tuple(sorted(settings.labels.items())),
        network=settings.lent_network,
    )
