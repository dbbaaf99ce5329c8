"""Asks the router for a port, by UPnP, and gives it back at the end.

The library blocks, so each call runs in a thread, bounded in time; a router that answers nonsense costs nothing but
that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import miniupnpc
import trio

log = logging.getLogger("potluck.reach")

# Routers answer a search within a fraction of a second; in milliseconds, as the library counts.
SEARCH_MS = 1000
# A mapping lasts so long unless it is renewed, so that a node that dies leaves none for ever; and until the next try.
LEASE_S, RENEW_S, AGAIN_S = 3600, 1200.0, 600.0
# One call to the router, and all that is done at the end; seconds.
CALL_S, END_S = 10.0, 3.0

# Ports that are asked for: our own, then others, for the neighbour's node may have that one.
PORTS_TRIED = 4


async def serve(port: int, mapped: Callable[[int], None]) -> None:
    """Keep `port` mapped, and tell which outer port that is (0: none), until cancelled."""
    while True:
        router, outer = await _call(_ask, port) or (None, 0)
        mapped(outer)
        if outer:
            await _keep(router, outer, port, mapped)
        await trio.sleep(AGAIN_S)


async def _keep(router: Any, outer: int, port: int, mapped: Callable[[int], None]) -> None:
    log.info("the router passes its port %d on to us", outer)
    try:
        while await _call(_add, router, outer, port):  # noqa: ASYNC110 - it is renewed by time
            await trio.sleep(RENEW_S)
    finally:
        mapped(0)
        with trio.CancelScope(shield=True), trio.move_on_after(END_S):
            await _call(_remove, router, outer)


async def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns; None if that takes too long."""
    with trio.move_on_after(CALL_S):
        return await trio.to_thread.run_sync(
            partial(function, *arguments),
            abandon_on_cancel=True,  # type: ignore[call-arg]  # newer than the stubs
        )
    return None


def _ask(port: int) -> tuple[Any, int] | None:
    router = miniupnpc.UPnP()
    router.discoverdelay = SEARCH_MS
    try:
        if not router.discover():
            return None
        router.selectigd()
    except Exception as error:  # noqa: BLE001 - the library raises `Exception` itself
        log.info("no router here maps ports by UPnP: %s", error)
        return None
    for outer in range(port, min(port + PORTS_TRIED, 65536)):
        if _is_free(router, outer, port) and _add(router, outer, port):
            return router, outer
    return None


def _is_free(router: Any, outer: int, port: int) -> bool:
    """Nobody has it, or we have it still, from before."""
    try:
        held = router.getspecificportmapping(outer, "TCP")
    except Exception:  # noqa: BLE001 - as above; routers say "no such entry" in many ways
        return True
    return held is None or held[:2] == (router.lanaddr, port)


def _add(router: Any, outer: int, port: int) -> bool:
    try:
        return bool(router.addportmapping(outer, "TCP", router.lanaddr, port, "potluck", "", LEASE_S))
    except Exception as error:  # noqa: BLE001 - as above
        log.info("the router gives no port %d: %s", outer, error)
        return False


def _remove(router: Any, outer: int) -> None:
    try:
        router.deleteportmapping(outer, "TCP")
    except Exception as error:  # noqa: BLE001 - as above
        log.info("the router keeps port %d: %s", outer, error)
