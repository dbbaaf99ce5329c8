"""The node's settings: `config.toml` in the data folder, overridden by command line flags."""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from potluck.errors import InvalidError
from potluck.network import ANYWHERE, checked_names
from potluck.verify import parsed
from potluck_ledger.keys import is_ed25519
from potluck_ledger.witness import WITNESSES_MAX
from potluck_node.core.levels import LevelName
from potluck_node.core.policy_rules import Policy
from potluck_node.machine import cores, memory_mib
from potluck_node.policy_file import checked

CONFIG_FILE = "config.toml"
# Where the gateway answers unless the owner says otherwise; on another port when this one is taken.
GATEWAY = "127.0.0.1:8317"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of a node; `HELP` explains each."""

    name: str = ""
    mesh: str = "local"
    offer: bool = True
    cpus: float = 0.0
    memory_mib: int = 0
    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    bootstrap: tuple[str, ...] = ()
    mdns: bool = False
    lane: bool = True
    relay: bool = True
    upnp: bool = False
    build_for_others: bool = False
    without_limits: bool = False
    trust: str | tuple[str, ...] = "none"
    trust_levels: dict[str, LevelName] = {}
    strangers_sandbox: Literal["", "bwrap", "gvisor"] = ""
    verify_strangers: str = "none"
    gpus: str | tuple[str | int, ...] = "all"
    gpu_share: bool = False
    idle_s: float = 60.0
    zygote_mib: int = 2048
    store_gib: float = 50.0
    upload_mib_s: float = 0.0
    download_mib_s: float = 0.0
    sandbox: Literal["process", "bwrap", "gvisor"] = "bwrap"
    network: str | tuple[str, ...] = "none"
    lazy: Literal["auto", "always", "never"] = "auto"
    region: str = ""
    witnesses: tuple[str, ...] = ()
    witnesses_needed: int = 1
    labels: dict[str, str] = {}
    share_machine: str = ""
    state: str = ""
    state_gib: float = 10.0
    volume_gib: float = 20.0
    volume_copies: int = 2
    volume_keep_gib: float = 20.0
    gateway: str = GATEWAY
    gateway_hosts: tuple[str, ...] = ()
    gateway_cert: str = ""
    gateway_key: str = ""
    metrics: str = "none"
    gateways: dict[str, tuple[str, ...]] = {}
    forward: dict[str, str] = {}
    tunnels: str = "127.0.0.1"
    ledger_admins: tuple[str, ...] = ()
    quota_deficit_s: float = 0.0
    policy: Policy = Policy()
    gpu_weights: dict[str, float] = {}

    @property
    def lent_network(self) -> tuple[str, ...]:
        """The names that functions may reach from here (`potluck.network`)."""
        words: dict[str, tuple[str, ...]] = {"none": (), "public": ANYWHERE}
        return words[self.network] if isinstance(self.network, str) else self.network


HELP = {
    "name": "The name others see; the host name unless given.",
    "mesh": "Nodes of one mesh see each other's offers; others are ignored.",
    "offer": "Whether this machine runs other people's functions at all.",
    "cpus": "Cores to lend; 0 means all but one.",
    "memory_mib": "Memory to lend in MiB; 0 means half of what the machine has.",
    "gpus": "GPUs to lend: all, none, or a list of their uuids and numbers.",
    "gpu_share": "Whether parts of a GPU's memory are lent to several at once; the driver does not keep them apart.",
    "listen": "Addresses to listen on, as libp2p multiaddrs; loopback only unless changed.",
    "bootstrap": "Addresses of nodes to join, each ending in /p2p/<peer id>.",
    "mdns": "Whether to find nodes on the local network by multicast DNS.",
    "lane": "Whether leases and images travel on TLS connections of their own where peers can be dialled; faster.",
    "relay": "Whether small traffic is passed on, slowly, to peers that nobody can reach directly.",
    "upnp": "Whether the router is asked, by UPnP, to let others in at the port of this node.",
    "network": "Where functions that ask for it may connect to: none, public (every public address), or names.",
    "build_for_others": "Whether peers may have their images built here, one at a time, in sandboxes.",
    "trust": "Peers whose results are unpickled, which lets them run code here: none, mesh (all), or a list of ids.",
    "trust_levels": "Levels of single peers, by id, which go before `trust`: owner, lab, known or stranger.",
    "strangers_sandbox": "The weakest sandbox for functions of strangers; nothing: as `sandbox` says.",
    "verify_strangers": "How results of strangers are verified unless a function says: none, adaptive, quorum:2of3.",
    "without_limits": "Whether others' functions run here even where their memory and processes cannot be limited.",
    "idle_s": "Seconds that a worker without work stays warm.",
    "zygote_mib": "Memory for what functions have imported, kept while nobody calls them, in MiB; 0 keeps nothing.",
    "store_gib": "Upper bound of the image store in GiB.",
    "upload_mib_s": "Cap on serving images to others, MiB a second; 0 means none.",
    "download_mib_s": "Cap on fetching images from others, MiB a second; 0 means none.",
    "sandbox": "The weakest sandbox that may run here: bwrap; gvisor (stricter); process (none: own functions only).",
    "lazy": "Whether images are mounted and fetched as they are read: auto (large ones), always, never.",
    "witnesses": "Ids of peers that are asked to cosign the head of this node's journal.",
    "witnesses_needed": "How many of them must have signed for a head to count as witnessed; three at most.",
    "region": "Where the machine is, for functions that ask for a region.",
    "labels": "Free labels for functions that ask for them.",
    "share_machine": "Folder in which nodes of several users tell each other what they lend, as /run/lock/potluck.",
    "state": "Where dicts and queues are: nothing for the node's own folder, or postgresql://USER@HOST/DATABASE.",
    "state_gib": "Upper bound of what dicts and queues hold, in GiB.",
    "volume_gib": "How much one volume that functions can write to may take of the disk here, in GiB.",
    "volume_copies": "On how many other, trusted peers the newest version of each volume of this node is kept.",
    "volume_keep_gib": "How much of the volumes of trusted peers is kept here as copies, in GiB; 0 means none.",
    "gateway": "Address and port at which functions answer web requests, once there are any; none turns that off.",
    "gateway_hosts": "Names, beside its address, under which the gateway may be asked; the first is shown in URLs.",
    "gateway_cert": "File with the gateway's TLS certificate chain; without one it speaks plain HTTP.",
    "gateway_key": "File with the private key of that certificate.",
    "metrics": "Address and port at which Prometheus reads /metrics, as 127.0.0.1:9478; none turns that off.",
    "gateways": "Apps of this node, each with the peer ids of other nodes whose gateways may answer for it.",
    "forward": "Apps of other nodes for which the gateway answers, each with the peer id of its owner's node.",
    "ledger_admins": "Peer ids whose grants of GPU time count here; without any, nobody is refused for a quota.",
    "gpu_weights": "What a second on a GPU class counts against grants of no class and `max_cost`; 1 unless named.",
    "quota_deficit_s": "Seconds that a caller may use beyond its quota, running behind all others.",
    "policy": "When the machine works for others: preset always, idle or nights, and what differs from it.",
    "tunnels": "Address at which ports that functions forward are reached; none refuses to forward any.",
}


def load(home: Path, flags: dict[str, Any]) -> Settings:
    """Settings from the file, with `flags` on top. Raises `InvalidError` naming the key and the nearest known one."""
    path = home / CONFIG_FILE
    values: dict[str, Any] = {}
    if path.exists():
        try:
            values = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidError(f"{path} is not valid TOML.", why=str(error)) from None
    values |= flags
    for key in values:
        if key not in HELP:
            near = difflib.get_close_matches(key, HELP, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known settings: {', '.join(HELP)}."
            raise InvalidError(f"{path} has an unknown setting {key!r}.", fix=hint)
    if "policy" in values:
        values["policy"] = checked(values["policy"])
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise InvalidError("A setting has a value that does not fit.", why=str(error), fix=f"Edit {path}.") from None
    return _complete(settings)


def _complete(settings: Settings) -> Settings:
    """Fill in what depends on the machine."""
    name = settings.name or re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()) or "node"
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", name):
        raise InvalidError(f"{name!r} is not a name for a node.", fix="Use up to 32 letters, digits, '-', '_' and '.'.")
    cpus = settings.cpus or max(1, cores() - 1)
    memory = settings.memory_mib or memory_mib() // 2
    if (
        min(
            cpus,
            memory,
            settings.upload_mib_s,
            settings.download_mib_s,
            settings.store_gib,
            settings.idle_s,
            settings.zygote_mib,
            settings.state_gib,
            settings.volume_gib,
            settings.volume_copies,
            settings.volume_keep_gib,
            settings.quota_deficit_s,
            *settings.gpu_weights.values(),
        )
        < 0
    ):
        raise InvalidError("A node cannot lend less than nothing.", fix="Give its settings positive values.")
    if not 0 <= settings.witnesses_needed <= WITNESSES_MAX:
        fix = f"Ask for at most {WITNESSES_MAX}."
        raise InvalidError("So many witnesses do not fit on a head.", fix=fix)
    for admin in settings.ledger_admins:
        if not is_ed25519(admin):
            raise InvalidError(f"{admin!r:.80} in ledger_admins is no peer id.", fix="`potluck status` shows a node's.")
    for peer in settings.trust_levels:
        if not is_ed25519(peer):
            raise InvalidError(f"{peer!r:.80} in trust_levels is no peer id.", fix="`potluck mesh peers` shows them.")
    if settings.verify_strangers != "none":
        parsed(settings.verify_strangers)
    gpus = settings.gpus
    if isinstance(gpus, str) and gpus not in ("all", "none"):
        gpus = _parts(gpus)
    network = settings.network
    if network not in ("none", "public"):
        network = checked_names(_parts(network) if isinstance(network, str) else network)
    trust = settings.trust
    if isinstance(trust, str) and trust not in ("none", "mesh"):
        trust = _parts(trust)
    return msgspec.structs.replace(
        settings, trust=trust, name=name, cpus=cpus, memory_mib=memory, gpus=gpus, network=network
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))
