"""What each page behind the first says. Pure: a `Status` and what was asked beside it in, blocks of rows out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from potluck.wire.control import AccountStatus, PeerStatus, Status
from potluck.wire.verify import PeerFacts, PeersKnown
from potluck_tui.model import Listing, Row, View, namer, peer_state, signed
from potluck_tui.words import PEER_TAIL, bar, duration, plain

# Of one block: more than anybody reads by scrolling. `potluck status --json` and `potluck ledger` have all.
ROWS_MAX = 300
# Reputation and nearness are read at a glance; the figure beside them is exact.
METER_WIDTH = 8
# A whole bar: as far as a round trip to the other side of the earth.
FAR_US = 300_000
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Page:
    """`key` jumps to it; `blocks` are the headings on it, by the names of their widgets."""

    name: str
    key: str
    title: str
    blocks: dict[str, str] = field(default_factory=dict)


PAGES = (
    Page("overview", "1", "Overview"),
    Page("calling", "2", "Calls", {"placed": "Calls from here", "why": "Who runs them", "here": "Running here"}),
    Page("mesh", "3", "Peers", {"map": "Peers and what this node thinks of them"}),
    Page("account", "4", "Ledger", {"sums": "Altogether", "by-peer": "With each peer"}),
)


@dataclass(frozen=True)
class Known:
    """What pages ask for beside the status; `problem` is what went wrong when they last did, in words."""

    peers: PeersKnown | None = None
    problem: str = ""


def make_page(name: str, status: Status, view: View, known: Known) -> dict[str, Listing]:
    """The blocks of a page by name. Raises `KeyError` for the first page, which is laid out by itself."""
    makers: dict[str, Callable[[], dict[str, Listing]]] = {
        "calling": lambda: _calling(status, view),
        "mesh": lambda: {"map": _map(status, known)},
        "account": lambda: {"sums": Listing(view.ledger, ""), "by-peer": _by_peer(status)},
    }
    return makers[name]()


def _listing(rows: Sequence[Row], empty: str, head: Row = ()) -> Listing:
    return Listing(tuple(rows[:ROWS_MAX]), empty, head, max(0, len(rows) - ROWS_MAX))


# Calls


def _calling(status: Status, view: View) -> dict[str, Listing]:
    why = [(plain(call.function), plain(line)) for call in status.calls for line in call.would]
    return {
        "placed": _listing(view.calls.rows, view.calls.empty, ("function", "inputs", "rate", "waits for")),
        "why": _listing(why, "Nothing is placed." if not status.calls else "No peer is known.", ("function", "peer")),
        "here": _listing(view.workers.rows, view.workers.empty, ("worker", "function", "caller", "state", "since")),
    }


# Peers


def _map(status: Status, known: Known) -> Listing:
    facts = {each.peer: each for each in known.peers.peers} if known.peers else {}
    now_us = known.peers.now_us if known.peers else status.now_us
    name = namer(status)
    seen = {peer.peer: peer for peer in status.peers}
    order = sorted(seen.values(), key=lambda peer: (not peer.connected, peer.rtt_us or FAR_US, peer.name, peer.peer))
    rows = [_peer(peer, facts.get(peer.peer), name(peer.peer), now_us) for peer in order]
    rows += [_away(each, now_us) for each in facts.values() if each.peer not in seen and each.peer != status.peer]
    head = ("peer", "now", "away", "", "trust", "reputation", "", "why")
    return _listing(rows, known.problem or "No peers yet. Join others with: potluck up --bootstrap ADDRESS", head)


def _peer(peer: PeerStatus, facts: PeerFacts | None, name: str, now_us: int) -> Row:
    away = f"{peer.rtt_us / 1000:.1f} ms" if peer.rtt_us else ""
    near = bar(peer.rtt_us, FAR_US, METER_WIDTH) if peer.rtt_us else ""
    note = " · ".join(each for each in (plain(peer.note), _why(facts, now_us)) if each)
    return (name, peer_state(peer), near, away, *_reputation(facts), note)


def _away(facts: PeerFacts, now_us: int) -> Row:
    return (plain(facts.name or facts.peer[-PEER_TAIL:]), "not here", "", "", *_reputation(facts), _why(facts, now_us))


def _reputation(facts: PeerFacts | None) -> Row:
    if facts is None:
        return "", "", ""
    judged = facts.right + facts.wrong
    said = f"{facts.score / 1000:.2f}" if judged else "unknown"
    return plain(facts.level), bar(facts.score, 1000, METER_WIDTH) if judged else "", said


def _why(facts: PeerFacts | None, now_us: int) -> str:
    if facts is None:
        return ""
    if facts.banned_us > now_us:
        minutes = -(-(facts.banned_us - now_us) // MINUTE_US)
        return f"sent nothing for {minutes} min: {plain(facts.banned_why)}"
    return plain(facts.why)


# Ledger


def _by_peer(status: Status) -> Listing:
    name = namer(status)
    found = sorted(status.accounts, key=lambda each: -(each.given_us + each.used_us))
    rows = [_account(each, name(each.peer)) for each in found]
    return _listing(rows, "No receipts yet.", ("peer", "given", "used", "balance", "inputs given, used"))


def _account(each: AccountStatus, name: str) -> Row:
    inputs = f"{each.inputs_given}, {each.inputs_used}"
    return name, duration(each.given_us), duration(each.used_us), signed(each.given_us - each.used_us), inputs
