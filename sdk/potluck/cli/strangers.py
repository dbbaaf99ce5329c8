"""`potluck mesh peers` and `potluck mesh evidence`: how far this node believes whom, and why."""

from __future__ import annotations

import time

import click

from potluck.cli.connect import client
from potluck.cli.mesh import mesh
from potluck.cli.show import ago, as_json, named, print_json, print_table
from potluck.errors import NotFoundError
from potluck.wire import verify as strangers


@mesh.command("peers")
@as_json
def peers(as_json: bool) -> None:
    """Each peer's level here and why, and what this node's own verdicts and receipts say of it."""
    found = client().ask(strangers.AskPeers, strangers.PeersKnown)
    if as_json:
        print_json(named(found))
        return
    rows = [_peer_row(each, found.now_us) for each in found.peers]
    print_table(("peer", "name", "level", "why", "right", "wrong", "score", "now"), rows, "Nobody is known.")


@mesh.command("evidence")
@click.argument("peer", default="")
@as_json
def evidence(peer: str, as_json: bool) -> None:
    """How inputs that were verified were decided, the newest first: all, or those of a PEER (name or id)."""
    node = client()
    known = node.ask(strangers.AskPeers, strangers.PeersKnown).peers
    peer_id = _peer_id(peer, known) if peer else ""
    found = node.ask(lambda number: strangers.AskEvidence(number, peer_id), strangers.EvidenceKept)
    if as_json:
        print_json(named(found))
        return
    names = {each.peer: each.name for each in known}
    now_us = time.time_ns() // 1000
    rows = [_evidence_row(each, names, now_us) for each in found.evidence]
    print_table(("when", "kind", "function", "input", "outcome", "who said what"), rows, "Nothing was verified yet.")


def _peer_row(peer: strangers.PeerFacts, now_us: int) -> tuple[str, ...]:
    ban = ""
    if peer.banned_us:
        ban = f"sent nothing for {-(-(peer.banned_us - now_us) // 60_000_000)} min: {peer.banned_why}"
    return (
        peer.peer,
        peer.name,
        peer.level,
        peer.why,
        f"{peer.right:.1f}",
        f"{peer.wrong:.1f}",
        f"{peer.score / 1000:g}",
        ban,
    )


def _peer_id(text: str, known: tuple[strangers.PeerFacts, ...]) -> str:
    """Raises `NotFoundError`."""
    found = [each.peer for each in known if text in (each.peer, each.name)]
    if len(found) != 1:
        many = "several peers have" if found else "no peer known here has"
        raise NotFoundError(f"{many} this name or id: {text:.80}.", fix="Give an id of `potluck mesh peers`.")
    return found[0]


def _evidence_row(each: strangers.EvidenceFacts, names: dict[str, str], now_us: int) -> tuple[str, ...]:
    votes = (
        f"{names.get(vote.peer, vote.peer[-8:])} {vote.verdict} ({vote.digest[:12]}, lease {vote.lease})"
        for vote in each.votes
    )
    function = f"{each.app}/{each.function}"
    return ago(each.at_us, now_us), each.kind, function, each.input_digest[:12], each.outcome, "; ".join(votes)
