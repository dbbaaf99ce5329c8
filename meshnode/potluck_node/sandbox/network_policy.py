"""Where a sandbox may connect to: names, addresses and ports. Pure.

A name is allowed if both the function asked for it and the owner allows it. An address is allowed if it is public and
not of a network that this machine is part of, whatever name led to it: names are resolved once, all their addresses
are checked, and only these are connected to (no DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from potluck.network import allows, plain_name

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Mail servers: what comes out of sandboxes there is spam, and gets the owner's address onto lists.
CLOSED_PORTS = (25,)

# `is_global` asks the IANA registries (RFC 6890) as they were when Python was released. These lead, or led, elsewhere:
# IETF protocols, relays of 6to4, the control plane of Azure; IPv4 inside IPv6 (compatible, mapped, translated), Teredo
# and its kin, 6to4, 6bone, site-local addresses.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"),
        *("::/32", "2001::/23", "2002::/16", "3ffe::/16", "fec0::/10"),
    )
)
# Global unicast (RFC 4291): nothing else of IPv6 is handed out to anybody.
_UNICAST = ipaddress.IPv6Network("2000::/3")
# Networks without IPv4 reach it through these addresses, whose last 32 bits are what counts (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

# Names that are never public: RFC 6761, 6762, 8375, ICANN's name for private use, and what routers like to
# use. Asking for them at all would show the owner's network, or send multicast.
_PRIVATE_NAMES = ("*.localhost", "*.local", "*.internal", "*.home.arpa", "*.lan")

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\\%\s]+)(?::(?P<port>[0-9]{1,5}))?")


class Refused(Exception):  # noqa: N818 - an answer, not a mistake
    """Why a request is not served: the HTTP status, and a sentence for whoever wrote the function."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Target:
    """Where somebody wants to connect to. `host` is a plain name or the usual form of an address."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        return as_address(self.host)

    @property
    def authority(self) -> str:
        """As the `Host` header names it, with the port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(text: str, default_port: int | None = None) -> Target:
    """The target in "example.org:443", "192.0.2.1:80" or "[2001:db8::1]:80". Raises `Refused`."""
    found = _AUTHORITY.fullmatch(text)
    port = int(found["port"] or default_port or 0) if found else 0
    if not found or not 0 < port < 1 << 16:
        raise Refused(400, f"{text!r:.100} is no host and port.")
    host = found["host"].removeprefix("[").removesuffix("]")
    address = as_address(host)
    if address is None and host != found["host"]:
        raise Refused(400, f"{text!r:.100} is no IPv6 address.")
    try:
        return Target(str(address) if address else plain_name(host), port)
    except ValueError as error:
        raise Refused(403, f"{host!r:.100} cannot be reached: {error}.") from None


def as_address(text: str) -> Address | None:
    """`text` if it is an address as usually written; other spellings (0x7f.1, 017700000001) are none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Policy:
    """`asked` is the function's list of names, `allowed` the owner's (`potluck.network`).

    `exempt` are addresses and ports that count as public. It is for tests, which have no other internet than their own
    loopback; no setting leads here.
    """

    asked: tuple[str, ...]
    allowed: tuple[str, ...]
    exempt: tuple[tuple[str, int], ...] = ()

    def check_target(self, target: Target) -> None:
        """Raises `Refused` for a target that is not to be looked up at all."""
        host = target.host
        if target.port in CLOSED_PORTS:
            raise Refused(403, f"Port {target.port} is closed to functions: it is for mail servers.")
        for patterns, who in ((self.asked, "the function asked for"), (self.allowed, "the machine's owner allows")):
            if not allows(patterns, host):
                raise Refused(403, f"{host} is not among what {who}: {', '.join(patterns[:8]) or 'nothing'}.")
        if target.address is None and allows(_PRIVATE_NAMES, host):
            raise Refused(403, f"{host} is a private name, which functions cannot reach.")

    def check_addresses(self, target: Target, found: Sequence[str], own: Sequence[Network]) -> None:
        """Raises `Refused` unless all addresses that the target's name has may be connected to.

        `own` are the networks that this machine is part of.
        """
        for text in found:
            if (text, target.port) not in self.exempt and not _is_reachable(as_address(text), own):
                where = text if text == target.host else f"{target.host}, which is at {text},"
                raise Refused(403, f"{where} cannot be reached: the address is private or of the owner's network.")


def _is_reachable(address: Address | None, own: Sequence[Network]) -> bool:
    if address is None or not is_public(address):
        return False
    return not any(each in network for each in (address, _translated(address)) for network in own)


def _translated(address: Address) -> Address:
    """Where a packet to `address` ends up behind a translator."""
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else address


def is_public(address: Address) -> bool:
    """Whether packets to `address` leave for the public internet, wherever they are sent from."""
    if any(address in network for network in _NEVER if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address in _NAT64:
        return is_public(_translated(address))
    return address in _UNICAST and address.is_global
