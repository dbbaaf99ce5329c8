"""When this machine moves: its addresses change, and what was connected from an old one is gone without a word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from potluck_node.transport.libp2p.guards import SOCKETS

log = logging.getLogger("potluck.reach")

# How often our own addresses are looked at, seconds. Otherwise TCP's keepalive would notice after 25.
LOOK_S = 1.0


async def serve(host: Any, moved: Callable[[], None]) -> None:
    """Close what is connected from addresses that are gone, and call `moved` at each change, until cancelled."""
    before = addresses(host)
    while True:
        await trio.sleep(LOOK_S)
        now = addresses(host)
        if now == before:
            continue
        log.info("the addresses of this machine changed: %s", ", ".join(sorted(now)) or "none")
        for stream in [stream for stream in SOCKETS if _own_host(stream) in before - now]:
            await trio.aclose_forcefully(stream)
        before = now
        moved()


def addresses(host: Any) -> set[str]:
    """Hosts at which we listen."""
    return {str(address).split("/")[2] for address in host.get_addrs()}


def _own_host(stream: trio.SocketStream) -> str:
    with suppress(OSError):
        return str(stream.socket.getsockname()[0])
    return ""
