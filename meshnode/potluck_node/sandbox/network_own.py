"""The networks that this machine is part of, as the kernel routes them: also those with public addresses.

A home's IPv6 addresses are public, and so is that of many a rented machine; connecting to them from here would pass by
the firewall that keeps others out.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from contextlib import suppress
from pathlib import Path

from potluck_node.sandbox.network_policy import Network

# Of routes as wide as these all traffic goes through, as with a VPN; they are no neighbourhood.
_WIDEST = {4: 8, 6: 16}

# A home or an office gets a /56 or a /48 (RFC 6177), of which one interface shows but a /64.
_SITE_BITS = 48


def own_networks(proc: Path = Path("/proc/net")) -> tuple[Network, ...]:
    """Read from the kernel's tables, each time: networks come and go. Without IPv6 its table is missing."""
    found: set[Network] = set()
    for name, parse in (("route", _routes), ("fib_trie", _addresses), ("ipv6_route", _routes6)):
        with suppress(FileNotFoundError):
            found |= parse((proc / name).read_text())
    return tuple(found)


def _routes(text: str) -> set[Network]:
    """IPv4 networks that are reached without a gateway: columns 2, 3 and 8, in the machine's own byte order."""
    found: set[Network] = set()
    for fields in map(str.split, text.splitlines()[1:]):
        network, gateway, mask = (_ipv4(fields[column]) for column in (1, 2, 7))
        bits = int(mask).bit_count()
        if not int(gateway) and bits >= _WIDEST[4]:
            found.add(ipaddress.IPv4Network((int(network), bits), strict=False))
    return found


def _ipv4(word: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(struct.pack("=I", int(word, 16)))


def _addresses(text: str) -> set[Network]:
    """This machine's own IPv4 addresses, also those that no route shows."""
    return {ipaddress.IPv4Network(found) for found in re.findall(r"\|-- ([\d.]+)\s+/32 host LOCAL", text)}


def _routes6(text: str) -> set[Network]:
    """IPv6 networks that are reached without a gateway, and the site around each public one."""
    found: set[Network] = set()
    for fields in map(str.split, text.splitlines()):
        bits, gateway = int(fields[1], 16), int(fields[4], 16)
        if not gateway and bits >= _WIDEST[6]:
            found.add(_site(int(fields[0], 16), bits))
    return found


def _site(address: int, bits: int) -> ipaddress.IPv6Network:
    return ipaddress.IPv6Network((address, min(bits, _SITE_BITS)), strict=False)
