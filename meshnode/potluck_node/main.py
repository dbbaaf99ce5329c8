"""`potluck-node`: the daemon. `potluck up` starts it; it prints "ready" when it serves, and logs to standard error."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import sys
from pathlib import Path

import trio

from potluck import paths
from potluck.errors import Error, SandboxError
from potluck.tiers import NO_GPU_TIERS, TIERS
from potluck_ledger.keys import PrivateKey
from potluck_node import config
from potluck_node.clock import Clock, SystemClock
from potluck_node.config import Settings
from potluck_node.devices.local import LocalDevices
from potluck_node.gpu_claims import GpuClaims, common_folder
from potluck_node.heap import keep_heap
from potluck_node.membership import Membership
from potluck_node.node import Node, Parts
from potluck_node.sandbox.tiers import PROCESS_WARNING, UNLIMITED_WARNING, Tiers, find
from potluck_node.transport.interface import RecordRank, Transport

log = logging.getLogger("potluck")

# Sixteen sandboxes whose networks are all in full use hold 3000 descriptors; peers, clients and images need some too.
OPEN_FILES = 16_384


def main() -> None:
    """Run a node until it is stopped by `potluck down`, SIGTERM or SIGINT."""
    arguments = vars(_parser().parse_args())
    if home := arguments.pop("home"):
        os.environ["POTLUCK_HOME"] = str(Path(home).absolute())
    embedded, show = arguments.pop("embedded"), arguments.pop("show_config")
    offset_us, device_root = round(arguments.pop("clock_offset_s") * 1e6), arguments.pop("device_root")
    flags = {name: value for name, value in arguments.items() if value is not None}
    try:
        settings = config.load(paths.home(), flags)
        if show:
            _show(settings)
            return
        _set_up_log()
        _raise_file_limit()
        keep_heap()
        node = Node(paths.home(), settings, _parts(settings, SystemClock(offset_us), embedded, device_root))
    except Error as error:
        sys.exit(f"error: {error}")
    trio.run(_run, node, strict_exception_groups=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="potluck-node", description=__doc__)
    parser.add_argument("--home", help="data folder; also POTLUCK_HOME")
    parser.add_argument("--embedded", action="store_true", help="serve this machine only; end when unused")
    parser.add_argument("--show-config", action="store_true", help="print every setting and what it means")
    # For tests of peers whose clock is wrong; a real node has no reason to use it.
    parser.add_argument("--clock-offset-s", type=float, default=0.0, help=argparse.SUPPRESS)
    # For tests with a fake GPU driver: where dev/, lib/ and proc/ of the devices are.
    parser.add_argument("--device-root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    parser.add_argument("--gpus", help=config.HELP["gpus"])
    parser.add_argument("--trust", help=config.HELP["trust"])
    parser.add_argument("--network", help=config.HELP["network"])
    yes_or_no = argparse.BooleanOptionalAction
    parser.add_argument("--gpu-share", action=yes_or_no, default=None, help=config.HELP["gpu_share"])
    parser.add_argument("--offer", action=argparse.BooleanOptionalAction, default=None, help=config.HELP["offer"])
    parser.add_argument("--mdns", action=argparse.BooleanOptionalAction, default=None, help=config.HELP["mdns"])
    for name in ("lane", "relay", "upnp"):
        parser.add_argument(f"--{name}", action=yes_or_no, default=None, help=config.HELP[name])
    parser.add_argument("--build-for-others", action=yes_or_no, default=None, help=config.HELP["build_for_others"])
    parser.add_argument("--without-limits", action=yes_or_no, default=None, help=config.HELP["without_limits"])
    for name in ("gateway", "gateway-cert", "gateway-key", "metrics"):
        parser.add_argument(f"--{name}", help=config.HELP[name.replace("-", "_")])
    parser.add_argument("--gateway-hosts", action="append", help=config.HELP["gateway_hosts"])
    for name, kind in (("name", str), ("mesh", str), ("region", str), ("cpus", float)):
        parser.add_argument(f"--{name}", type=kind, help=config.HELP[name])
    for name in ("memory-mib", "zygote-mib", "witnesses-needed"):
        parser.add_argument(f"--{name}", type=int, help=config.HELP[name.replace("-", "_")])
    for name in ("idle-s", "store-gib", "upload-mib-s", "download-mib-s"):
        parser.add_argument(f"--{name}", type=float, help=config.HELP[name.replace("-", "_")])
    parser.add_argument("--sandbox", choices=TIERS, help=config.HELP["sandbox"])
    parser.add_argument("--lazy", choices=("auto", "always", "never"), help=config.HELP["lazy"])
    parser.add_argument("--quota-deficit-s", type=float, help=config.HELP["quota_deficit_s"])
    for name in ("listen", "bootstrap", "witnesses", "ledger-admins"):
        parser.add_argument(f"--{name}", action="append", help=config.HELP[name.replace("-", "_")])
    return parser


def _show(settings: Settings) -> None:
    for name, text in config.HELP.items():
        sys.stdout.write(f"{name} = {getattr(settings, name)!r}\n    {text}\n")


def _set_up_log() -> None:
    logging.basicConfig(
        level=os.environ.get("POTLUCK_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # The library reports each lost peer as a warning with a traceback; our own layer says it in a line.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    # With POTLUCK_LOG=DEBUG it writes twenty lines for each address that it reads.
    logging.getLogger("multiaddr").setLevel(logging.INFO)


def _raise_file_limit() -> None:
    """The usual soft limit of 1024 is for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _parts(settings: Settings, clock: Clock, embedded: bool, device_root: Path) -> Parts:
    make = _no_network if embedded else _libp2p
    launcher, warning = _launcher(settings) if settings.offer else (None, "")
    lends = launcher and launcher.tier not in NO_GPU_TIERS and settings.gpus != "none"
    devices = LocalDevices(device_root) if lends else None
    claims = GpuClaims(common_folder(device_root))
    return Parts(make, launcher, clock, paths.socket_path(), embedded, warning, devices, claims=claims)


def _launcher(settings: Settings) -> tuple[Tiers | None, str]:
    """The sandboxes of this machine; without one the node only calls, and says why."""
    try:
        launcher = find(settings.sandbox)
    except SandboxError as error:
        log.warning("this node runs no functions: %s", error)
        return None, f"This node runs no functions. {error}"
    if settings.sandbox == "process":
        return launcher, PROCESS_WARNING
    if launcher.lacking and not settings.without_limits:
        return launcher, UNLIMITED_WARNING.format(lacking=" and ".join(launcher.lacking))
    return launcher, ""


def _libp2p(key: PrivateKey, settings: Settings, rank: RecordRank, membership: Membership | None) -> Transport:
    from potluck_node.transport.libp2p import Libp2pTransport

    psk = membership.file.psk if membership else None
    return Libp2pTransport(
        key, settings.listen, settings.bootstrap, rank,
        mdns=settings.mdns, psk=psk, lane=settings.lane, admission=membership,
        relay=settings.relay, upnp=settings.upnp,
    )  # fmt: skip


def _no_network(key: PrivateKey, settings: Settings, rank: RecordRank, membership: Membership | None) -> Transport:
    from potluck_node.transport.memory import MemoryNetwork, MemoryTransport

    return MemoryTransport(MemoryNetwork(), key.peer, rank_record=rank)


async def _run(node: Node) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(node.serve)
        _say_ready()
        nursery.start_soon(_stop_on_signal, node)
        await node.ended()
        nursery.cancel_scope.cancel()


def _say_ready() -> None:
    """Tell whoever started us, and let go of its pipe."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


async def _stop_on_signal(node: Node) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            node.stop()


if __name__ == "__main__":
    main()
