"""Who can reach us, and how somebody else is reached. Pure.

The order is that of the design: local network, IPv6, mapped port, then with a relay's help: connection reversal, hole
punch, and the relay itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from potluck.wire.reach import ENDPOINTS_MAX

# What stands between us and others: nothing ("open"); a router that lets others in at some port ("mapped"); one that
# gives the same port towards everybody ("cone"), or a new one towards each ("symmetric"); a firewall that lets nobody
# in ("walled"); not known yet.
Kind = Literal["unknown", "open", "mapped", "cone", "symmetric", "walled"]
KINDS: tuple[Kind, ...] = ("unknown", "open", "mapped", "cone", "symmetric", "walled")

# Direct addresses get this start before a relay is asked, seconds: several round trips on a local network, and too
# short to matter to a call that waits for a relay.
KNOCK_AFTER_S = 0.25

# Ports below are those of services that never are nodes of ours, such as the web page of a router.
PORT_MIN = 1024

CIRCUIT = "/p2p-circuit"


@dataclass(frozen=True)
class Report:
    """What one observer saw: our probe came from `host` and `port`. `open_ports` are those at which its own came in."""

    observer: str
    host: str
    port: int
    open_ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """`endpoints` (host, port) are those at which others got in; `observers` how many peers it rests on."""

    kind: Kind = "unknown"
    endpoints: tuple[tuple[str, int], ...] = ()
    observers: int = 0

    @property
    def reachable(self) -> bool:
        return self.kind in ("open", "mapped")

    @property
    def hidden(self) -> bool:
        """Whether relays are needed."""
        return self.kind in ("cone", "symmetric", "walled")


def judge(reports: Sequence[Report], own_hosts: Iterable[str]) -> Verdict:
    """What the reports of different observers come to. `own_hosts` are the addresses of this machine.

    Observers on the internet outweigh those of a local network, who say nothing about the way through the router.
    """
    reports = [each for each in reports if is_global(each.host)] or list(reports)
    if not reports:
        return Verdict()
    endpoints = tuple(dict.fromkeys((each.host, port) for each in reports for port in each.open_ports))
    translated = not {each.host for each in reports} <= set(own_hosts)
    kind: Kind
    if endpoints:
        kind = "mapped" if translated else "open"
    elif not translated:
        kind = "walled"
    else:
        kind = "cone" if len({(each.host, each.port) for each in reports}) == 1 else "symmetric"
    return Verdict(kind, endpoints, len({each.observer for each in reports}))


def punchable(ours: str, theirs: str) -> bool:
    """Whether two peers that cannot be dialled get through by dialling at once: each has to know the other's port."""
    return all(kind in ("cone", "walled", "unknown") for kind in (ours, theirs))


def is_global(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def dialable(endpoints: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """What of the addresses that a stranger names may be dialled: none of a local network, and no port of a service."""
    found = [(host, port) for host, port in endpoints if is_global(host) and PORT_MIN <= port <= 65535]
    return tuple(dict.fromkeys(found))[:ENDPOINTS_MAX]


def address_of(host: str, port: int) -> str:
    """As a multiaddr, without a peer."""
    return f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}"


@dataclass(frozen=True)
class Ways:
    """How a peer may be reached: addresses to dial at once, and relays (addresses with their peer) to ask later."""

    direct: tuple[str, ...]
    relays: tuple[str, ...]

    @property
    def ask_after_s(self) -> float:
        """When the relays are asked, seconds from the beginning."""
        return KNOCK_AFTER_S if self.direct else 0.0


def ways(addresses: Iterable[str]) -> Ways:
    """Of the addresses that a peer announces, in the order in which they are used."""
    direct, relays = [], []
    for text in dict.fromkeys(addresses):
        head, mark, _ = text.partition(CIRCUIT)
        if mark and head.count("/p2p/") == 1:
            relays.append(head)
        elif not mark:
            direct.append(text.partition("/p2p/")[0])
    return Ways(tuple(sorted(dict.fromkeys(direct), key=_order)), tuple(dict.fromkeys(relays)))


def _order(address: str) -> int:
    """Local addresses, then IPv6, then others; loopback last."""
    parts = address.split("/")
    try:
        host = ipaddress.ip_address(parts[2])
    except (IndexError, ValueError):
        return 2
    if host.is_loopback:
        return 3
    if not host.is_global:
        return 0
    return 1 if host.version == 6 else 2
