"""Peers on the local network, by multicast DNS."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.discovery.mdns import MDNSDiscovery, create_mdns_discovery

log = logging.getLogger("potluck.transport")

# How often new announcements are looked at, seconds.
LOOK_S = 1.0

# Announcements that are considered; whoever floods the network with more gains nothing.
FOUND_MAX = 256


async def serve(host: Any, found: Callable[[str, tuple[str, ...]], Awaitable[None]]) -> None:
    """Announce this host and report each peer found, until cancelled.

    The library's own start and its global registry of callbacks (which is never emptied, and called from a thread) are
    left alone: its listener's table is read instead. Its calls block, so they run in threads.
    """
    try:
        discovery = await trio.to_thread.run_sync(lambda: create_mdns_discovery(host.get_network(), host=host))
    except OSError as error:
        log.warning("no discovery on the local network: %s", error)
        return
    try:
        await trio.to_thread.run_sync(discovery.broadcaster.register)
        await _look(host, discovery, found)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_stop, discovery)


async def _look(host: Any, discovery: MDNSDiscovery, found: Callable[[str, tuple[str, ...]], Awaitable[None]]) -> None:
    seen: set[str] = set()
    while True:
        for peer, _ in list(discovery.listener.discovered_services.values()):
            if str(peer) not in seen and len(seen) < FOUND_MAX:
                seen.add(str(peer))
                await found(str(peer), tuple(str(each) for each in host.get_peerstore().addrs(peer)))
        await trio.sleep(LOOK_S)


def _stop(discovery: MDNSDiscovery) -> None:
    discovery.broadcaster.unregister()
    discovery.listener.stop()
    discovery.zeroconf.close()
