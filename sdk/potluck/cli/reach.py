"""What `potluck doctor` says of how others reach this machine's node, and how fast it sends."""

from __future__ import annotations

from collections.abc import Iterator

from potluck.errors import ConnectionError
from potluck.wire.doctor import AskReach, Finding, ReachReport

ABOUT = "reach"

# Of the sentences, `at` is where others get in, and `port` that on which the node listens.
_SAYS = {
    "open": "Others reach this node, at {at}.",
    "mapped": "Others reach this node through the router in front of it, at {at}.",
    "cone": "The router in front of this machine lets nobody in; it keeps ports towards everybody (cone).",
    "symmetric": "The router in front of this machine lets nobody in, and takes a new port for each peer (symmetric).",
    "walled": "A firewall of this machine, or in front of it, lets nobody in.",
    "unknown": "No peer has looked at this node from outside yet.",
}
_MEANS = {
    "cone": "Peers reach it by a hole punch, within seconds, and where that fails through relays, which carry 64 MiB.",
    "symmetric": "Peers that are behind routers, too, reach it through relays alone, which carry 64 MiB and are slow.",
    "walled": "Peers reach it by a hole punch, and where that fails through relays, which carry 64 MiB and are slow.",
}
_LET_IN = "potluck up --upnp, or have the router pass TCP port {port} on to this machine"
_FIXES = {
    "cone": _LET_IN,
    "symmetric": _LET_IN,
    "walled": "Let TCP port {port} in, as with: sudo ufw allow {port}/tcp",
}


def look() -> list[Finding]:
    """Ask the node that runs, if one does; some MiB are sent to a peer."""
    from potluck.cli.connect import client

    try:
        connection = client()
    except ConnectionError:
        says = "No node runs here, so nobody could look how others reach it."
        return [Finding(ABOUT, "weak", says, fix="potluck up, then potluck doctor again")]
    try:
        return list(findings(connection.ask(lambda question: AskReach(question, True), ReachReport)))
    finally:
        connection.close()


def findings(report: ReachReport) -> Iterator[Finding]:
    """In words."""
    if not report.port:
        says = "The node listens for this machine alone, so no other machine can reach it."
        yield Finding(ABOUT, "weak", says, "It can call others, and join meshes.",
                      "potluck up --listen /ip4/0.0.0.0/tcp/4001")  # fmt: skip
    elif not report.connected:
        says = "The node is connected to no peer, so nobody could look how others reach it."
        yield Finding(ABOUT, "weak", says, fix="potluck up --bootstrap ADDRESS, with that of a node that runs")
    else:
        yield _standing(report)
    if report.relayed:
        says = f"{report.relayed} of {report.connected} peers are reached through relays alone now."
        yield Finding(ABOUT, "weak", says, "To these, large arguments and images are not sent.")
    if report.upload:
        yield _upload(report)


def _standing(report: ReachReport) -> Finding:
    at = ", ".join(f"{host} port {port}" for host, port in report.endpoints)
    says = _SAYS.get(report.kind, _SAYS["unknown"]).format(at=at)
    seen = f" So say {report.observers} peers." if report.observers > 1 else " So says one peer."
    fix = _FIXES.get(report.kind, "").format(port=report.port)
    hidden = report.kind in _MEANS
    if hidden and not report.relays:
        means = "No relay passes anything on to it: peers cannot reach it at all, but those that it dialled."
        return Finding(ABOUT, "missing", says + seen, means, fix)
    if report.kind == "unknown":
        return Finding(ABOUT, "weak", says, "It takes a few seconds, and a peer that this node dialled.")
    return Finding(ABOUT, "weak" if hidden else "good", says + seen, _MEANS.get(report.kind, ""), fix)


def _upload(report: ReachReport) -> Finding:
    assert report.upload
    mib, seconds = report.upload.sent_bytes / (1 << 20), report.upload.took_us / 1e6
    says = f"It sends {mib / seconds:.1f} MiB/s: {mib:.1f} MiB went to the peer …{report.upload.peer[-8:]} just now."
    return Finding("upload", "good", says)
