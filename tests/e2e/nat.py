"""A small internet for tests: network namespaces, routers with real NAT rules, lossy and broken links.

Public hosts and the outer sides of routers hang on one bridge; behind each router is a local network of its own.
Nothing of it can reach the machine's own networks. Needs root, `ip` and `nft`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.e2e.mesh import Node

Kind = Literal["cone", "restricted", "symmetric"]

# Global addresses, since that is what nodes ask of an address; no packet leaves the namespaces.
PUBLIC = "45.9.0"

_numbers = itertools.count()

# Unasked packets from outside are dropped, not refused, as home routers do. `restricted`: the kernel's own NAT keeps
# the port where it can, and lets in only who was written to. `symmetric`: another port for each connection.
_RULES = """
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat
    {inward}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    oifname "wan" {outward}
  }}
}}
table inet filter {{
  chain forward {{
    type filter hook forward priority filter; policy drop
    ct state established,related accept
    iifname "lan" accept
    ct status dnat accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop
    ct state established,related accept
    iifname {{ "lan", "lo" }} accept
  }}
}}
"""


_UPNP_RULES = """
table inet upnp {
  chain forward {
    type filter hook forward priority filter - 10
  }
  chain prerouting {
    type nat hook prerouting priority dstnat
  }
  chain postrouting {
    type nat hook postrouting priority srcnat - 10
  }
}
"""
_UPNP = """
ext_ifname=wan
ext_ip={address}
listening_ip=lan
port=5000
enable_natpmp=no
enable_upnp=yes
secure_mode=yes
uuid=00000000-0000-0000-0000-000000000001
upnp_table_name=upnp
upnp_nat_table_name=upnp
upnp_forward_chain=forward
upnp_nat_chain=prerouting
upnp_nat_postrouting_chain=postrouting
lease_file={folder}/leases
allow 1024-65535 192.168.0.0/16 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


_NOBODY = """
table inet refuse
delete table inet refuse
"""
_LOSSY = """
table inet lossy {{
  chain output {{
    type filter hook output priority filter
    numgen random mod 100 < {percent} drop
  }}
}}
"""
_REFUSE = """
table inet refuse {{
  chain input {{
    type filter hook input priority filter
    ip saddr {address} drop
  }}
}}
"""


def why_not() -> str:
    """Why there are no such networks on this machine; empty if there are."""
    if os.geteuid() != 0:
        return "network namespaces with NAT need root"
    lacking = [tool for tool in ("ip", "nft", "nsenter") if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    try:
        with Internet() as net:
            net.behind(net.router("restricted"), "trial")
    except subprocess.CalledProcessError as error:
        return f"no namespaces with NAT here: {error.cmd} said {error.stderr.strip()}"
    return ""


def run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@dataclass
class Place:
    """A namespace with one interface to elsewhere."""

    namespace: str
    address: str
    interface: str = "eth0"

    def run(self, *command: str, stdin: str = "") -> str:
        return run("nsenter", f"--net=/run/netns/{self.namespace}", *command, stdin=stdin)

    def lose(self, percent: int) -> None:
        """Lose so many packets on their way out, at random. (By nftables: not every kernel has netem.)"""
        self.run("nft", "-f", "-", stdin=_LOSSY.format(percent=percent))

    def refuse(self, address: str) -> None:
        """Drop all that comes from an address; from nobody if empty."""
        self.run("nft", "-f", "-", stdin=_NOBODY + (_REFUSE.format(address=address) if address else ""))

    def unplug(self) -> None:
        self.run("ip", "link", "set", self.interface, "down")

    def plug(self, gateway: str = "") -> None:
        """The kernel forgets routes of an interface that is down."""
        self.run("ip", "link", "set", self.interface, "up")
        if gateway:
            self.run("ip", "route", "replace", "default", "via", gateway)


@dataclass
class Router(Place):
    """`address` is the outer one; inside it is `inside`.1."""

    inside: str = ""
    hosts: itertools.count = field(default_factory=lambda: itertools.count(10))


class Internet:
    """Made of namespaces, all of which are gone when the block is left."""

    def __init__(self) -> None:
        self._prefix = f"pl{os.getpid()}x{next(_numbers)}"
        self._namespaces: list[str] = []
        self._public, self._inner = itertools.count(1), itertools.count(1)

    def __enter__(self) -> Internet:
        try:
            self._bridge = self._namespace("net")
            self._in(self._bridge, "ip", "link", "add", "br0", "type", "bridge")
            self._in(self._bridge, "ip", "link", "set", "br0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def host(self, name: str) -> Place:
        """A machine with a public address."""
        place = Place(self._namespace(name), f"{PUBLIC}.{next(self._public)}")
        self._attach(place.namespace, "eth0", f"{place.address}/24", self._bridge, "br0")
        return place

    def router(self, kind: Kind, name: str = "") -> Router:
        number = next(self._inner)
        inside = f"192.168.{number}"
        router = Router(self._namespace(name or f"r{number}"), f"{PUBLIC}.{next(self._public)}", "wan", inside)
        self._attach(router.namespace, "wan", f"{router.address}/24", self._bridge, "br0")
        router.run("ip", "link", "add", "lan", "type", "bridge")
        router.run("ip", "addr", "add", f"{inside}.1/24", "dev", "lan")
        router.run("ip", "link", "set", "lan", "up")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        # A cone lets everybody in at the port that it gave; here for its first host, which is all that is needed.
        inward = f'iifname "wan" dnat to {inside}.10' if kind == "cone" else ""
        outward = "masquerade fully-random" if kind == "symmetric" else "masquerade"
        router.run("nft", "-f", "-", stdin=_RULES.format(inward=inward, outward=outward))
        return router

    def gives_ports(self, router: Router, folder: Path) -> subprocess.Popen[bytes]:
        """Let a router map ports by UPnP, as a real one does; to be ended by whoever asked for it."""
        # It looks for a default route on its outer side.
        router.run("ip", "route", "add", "default", "dev", "wan")
        router.run("nft", "-f", "-", stdin=_UPNP_RULES)
        config = folder / f"{router.namespace}.conf"
        config.write_text(_UPNP.format(address=router.address, folder=folder))
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{router.namespace}", "miniupnpd", "-d", "-f", str(config),
             "-P", str(folder / f"{router.namespace}.pid")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def behind(self, router: Router, name: str) -> Place:
        """A machine in the local network of a router."""
        place = Place(self._namespace(name), f"{router.inside}.{next(router.hosts)}")
        self._attach(place.namespace, "eth0", f"{place.address}/24", router.namespace, "lan")
        place.run("ip", "route", "add", "default", "via", f"{router.inside}.1")
        return place

    def move(self, place: Place, router: Router) -> None:
        """Unplug a machine there and plug it in here, with a new address: what happens when somebody goes home."""
        self._in(place.namespace, "ip", "link", "del", "eth0")
        place.address = f"{router.inside}.{next(router.hosts)}"
        self._attach(place.namespace, "eth0", f"{place.address}/24", router.namespace, "lan")
        place.run("ip", "route", "add", "default", "via", f"{router.inside}.1")

    def _namespace(self, name: str) -> str:
        full = f"{self._prefix}{name}"
        run("ip", "netns", "add", full)
        self._namespaces.append(full)
        self._in(full, "ip", "link", "set", "lo", "up")
        return full

    def _in(self, namespace: str, *command: str) -> str:
        return run("nsenter", f"--net=/run/netns/{namespace}", *command)

    def _attach(self, namespace: str, interface: str, address: str, switch: str, bridge: str) -> None:
        """A cable between a namespace and the bridge in another one."""
        port = f"p{next(_numbers)}"
        run("ip", "link", "add", interface, "netns", namespace, "type", "veth", "peer", "name", port, "netns", switch)
        self._in(namespace, "ip", "addr", "add", address, "dev", interface)
        self._in(namespace, "ip", "link", "set", interface, "up")
        self._in(switch, "ip", "link", "set", port, "master", bridge)
        self._in(switch, "ip", "link", "set", port, "up")


class PlacedNode(Node):
    """A node in a namespace. Its clients reach it from anywhere: the control socket is a file."""

    def __init__(self, folder: Path, place: Place, name: str, *flags: str) -> None:
        super().__init__(folder, name, "--listen", "/ip4/0.0.0.0/tcp/4001", *flags)
        self.place = place
        self.network = f"/run/netns/{place.namespace}"
