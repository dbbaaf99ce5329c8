"""What each page behind the first says. Pure: a `Status` and what was asked beside it in, blocks of rows out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from potluck.wire.control import AccountStatus, PeerStatus, Status
from potluck.wire.doctor import Finding
from potluck.wire.history import GpusTold, HistoryTold
from potluck.wire.policy import PolicyTold, Reason
from potluck.wire.verify import PeerFacts, PeersKnown
from potluck_tui.disk import Disk, disk_blocks
from potluck_tui.model import Listing, Row, View, namer, peer_state, signed
from potluck_tui.words import PEER_TAIL, age, bar, duration, plain

# Of one block: more than anybody reads by scrolling. `potluck status --json` and `potluck ledger` have all.
ROWS_MAX = 300
# Reputation and nearness are read at a glance; the figure beside them is exact.
METER_WIDTH = 8
# A whole bar: as far as a round trip to the other side of the earth.
FAR_US = 300_000
MINUTE_US = 60_000_000
# Of what the chosen call printed, so that most of the page fits a window of 24 lines.
PRINTS_MAX = 8
# Of what happened; `potluck log` has all.
LATELY_MAX = 50


@dataclass(frozen=True)
class Page:
    """`key` jumps to it; `blocks` are the headings on it, by the names of their widgets. Of the block `chooses` one row
    is chosen."""

    name: str
    key: str
    title: str
    blocks: dict[str, str] = field(default_factory=dict)
    chooses: str = ""


PAGES = (
    Page("overview", "1", "Overview"),
    Page(
        "calling",
        "2",
        "Calls",
        {
            "placed": "Calls from here",
            "log": "What the chosen one prints",
            "why": "Who runs them",
            "here": "Running here",
            "lately": "Lately",
        },
        "placed",
    ),
    Page("mesh", "3", "Peers", {"map": "Peers, the nearest first", "reasons": "Why"}),
    Page(
        "images",
        "4",
        "Images",
        {"budget": "The disk", "kept": "Images, the last used first", "volumes": "Volumes"},
        "kept",
    ),
    Page(
        "account",
        "5",
        "Ledger",
        {"sums": "Altogether", "days": "Each day", "by-peer": "With each peer", "receipts": "The newest receipts"},
    ),
    Page("policy", "6", "Policy", {"reasons-now": "Now", "settings": "Settings that count", "facts": "What is known"}),
    Page("doctor", "7", "Doctor", {"findings": "What this machine has, and what would make it better"}),
)


@dataclass(frozen=True)
class Note:
    """Prose with a heading; `state` is good, weak, missing or empty."""

    state: str
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Notes:
    """`empty` is said instead of none."""

    notes: tuple[Note, ...]
    empty: str


Block = Listing | Notes


@dataclass(frozen=True)
class Books:
    """A journal that was verified here, in words."""

    verified: str
    days: tuple[Row, ...]
    receipts: tuple[Row, ...]


@dataclass(frozen=True)
class Known:
    """What pages ask for beside the status; `problems` says by page what went wrong when they last did."""

    peers: PeersKnown | None = None
    books: Books | None = None
    policy: PolicyTold | None = None
    findings: tuple[Finding, ...] | None = None
    disk: Disk | None = None
    tail: tuple[Row, ...] = ()
    lately: tuple[Row, ...] = ()
    gpus: GpusTold | None = None
    history: HistoryTold | None = None
    problems: Mapping[str, str] = field(default_factory=dict)


def make_page(name: str, status: Status, view: View, known: Known) -> dict[str, Block]:
    """The blocks of a page by name. Raises `KeyError` for the first page, which is laid out by itself."""
    makers: dict[str, Callable[[], dict[str, Block]]] = {
        "calling": lambda: _calling(status, view, known),
        "images": lambda: dict(disk_blocks(known.disk, status.now_us, _line(known.problems.get("images", "")))),
        "mesh": lambda: _mesh(status, known),
        "account": lambda: _ledger(status, view, known),
        "policy": lambda: policy_blocks(status, known.policy, known.problems.get("policy", "")),
        "doctor": lambda: {"findings": _findings(known)},
    }
    return makers[name]()


def _listing(rows: Sequence[Row], empty: str, head: Row = ()) -> Listing:
    return Listing(tuple(rows[:ROWS_MAX]), empty, head if rows else (), max(0, len(rows) - ROWS_MAX))


# Calls


def _calling(status: Status, view: View, known: Known) -> dict[str, Block]:
    why = [(plain(call.function), plain(line)) for call in status.calls for line in call.would]
    placed = _listing(view.calls.rows, view.calls.empty, ("function", "inputs", "rate", "waits for"))
    return {
        "placed": replace(placed, keys=tuple(call.call for call in status.calls[:ROWS_MAX])),
        "log": _prints(known.tail, bool(status.calls), _line(known.problems.get("calling", ""))),
        "lately": Listing(known.lately[-LATELY_MAX:], "Nothing has changed since this screen began."),
        "why": _listing(why, "Nothing is placed." if not status.calls else "No peer is known.", ("function", "peer")),
        "here": _listing(view.workers.rows, view.workers.empty, ("worker", "function", "caller", "state", "since")),
    }


def _prints(tail: Sequence[Row], any_call: bool, problem: str) -> Listing:
    """The newest lines; the others of the page are to be in sight, too."""
    hidden = len(tail) - PRINTS_MAX
    before = (("…", f"{hidden} lines before; all that is kept: potluck app logs"),) if hidden > 0 else ()
    empty = problem or ("It has printed nothing." if any_call else "No call, no prints.")
    return Listing((*before, *tail[-PRINTS_MAX:]), empty)


# Peers


def _mesh(status: Status, known: Known) -> dict[str, Block]:
    facts = {each.peer: each for each in known.peers.peers} if known.peers else {}
    now_us = known.peers.now_us if known.peers else status.now_us
    name = namer(status)
    found = sorted(status.peers, key=lambda peer: (not peer.connected, peer.rtt_us or FAR_US, peer.name, peer.peer))
    gone = [each for each in facts.values() if each.peer not in {status.peer, *(peer.peer for peer in found)}]
    rows = [_peer(peer, facts.get(peer.peer), name(peer.peer)) for peer in found] + [_away(each) for each in gone]
    why = [(name(peer.peer), _why(plain(peer.note), facts.get(peer.peer), now_us)) for peer in found]
    why += [(row[0], _why("", each, now_us)) for row, each in zip(rows[len(found) :], gone, strict=True)]
    head = ("peer", "now", "away", "", "warm", "images", "trust", "reputation", "")
    none = known.problems.get("mesh") or "No peers yet. Join others with: potluck up --bootstrap ADDRESS"
    return {"map": _listing(rows, none, head), "reasons": _listing([each for each in why if each[1]], "Nothing.")}


def _peer(peer: PeerStatus, facts: PeerFacts | None, name: str) -> Row:
    away = f"{peer.rtt_us / 1000:.1f} ms" if peer.rtt_us else ""
    near = bar(peer.rtt_us, FAR_US, METER_WIDTH) if peer.rtt_us else ""
    kept = (str(peer.warm), str(peer.images)) if peer.warm or peer.images else ("", "")
    return (name, peer_state(peer), near, away, *kept, *_reputation(facts))


def _away(facts: PeerFacts) -> Row:
    return (plain(facts.name or facts.peer[-PEER_TAIL:]), "not here", "", "", "", "", *_reputation(facts))


def _reputation(facts: PeerFacts | None) -> Row:
    if facts is None:
        return "", "", ""
    judged = facts.right + facts.wrong
    said = f"{facts.score / 1000:.2f}" if judged else "unknown"
    return plain(facts.level), bar(facts.score, 1000, METER_WIDTH) if judged else "", said


def _why(note: str, facts: PeerFacts | None, now_us: int) -> str:
    said = plain(facts.why) if facts else ""
    if facts and facts.banned_us > now_us:
        minutes = -(-(facts.banned_us - now_us) // MINUTE_US)
        said = f"sent nothing for {minutes} min: {plain(facts.banned_why)}"
    return " · ".join(each for each in (note, said) if each)


# Ledger


def _ledger(status: Status, view: View, known: Known) -> dict[str, Block]:
    books, problem = known.books, known.problems.get("account", "")
    checked = ("Verified", "yes", books.verified) if books else ("Verified", "…", "this takes a moment")
    if problem:
        checked = ("Verified", "no", _line(problem))
    days = ("day (UTC)", "given", "", "used", "")
    newest = ("ended (UTC)", "", "peer", "function", "", "leased", "signed")
    return {
        "sums": Listing((*view.ledger, checked), ""),
        "days": _listing(books.days if books else (), "No receipts yet.", days),
        "by-peer": _by_peer(status),
        "receipts": _listing(books.receipts if books else (), "No receipts yet.", newest),
    }


def _by_peer(status: Status) -> Listing:
    name = namer(status)
    found = sorted(status.accounts, key=lambda each: -(each.given_us + each.used_us))
    rows = [_account(each, name(each.peer)) for each in found]
    return _listing(rows, "No receipts yet.", ("peer", "given", "used", "balance", "inputs given, used"))


def _account(each: AccountStatus, name: str) -> Row:
    inputs = f"{each.inputs_given}, {each.inputs_used}"
    return name, duration(each.given_us), duration(each.used_us), signed(each.given_us - each.used_us), inputs


# Policy


def policy_blocks(status: Status, told: PolicyTold | None, problem: str = "") -> dict[str, Block]:
    """What the policy says, now or of a text that is being edited."""
    waiting = _line(problem) if problem else "Asking the node …"
    if told is None:
        return {"reasons-now": Notes((), waiting), "settings": Listing((), waiting), "facts": Listing((), waiting)}
    gpus = {gpu.uuid: f"GPU {number}" for number, gpu in enumerate(status.gpus)}
    notes = [_reason(each, gpus, status.now_us) for each in told.reasons]
    if told.works:
        notes.insert(0, Note("good", "Nothing keeps this machine from working for others.", ()))
    return {
        "reasons-now": Notes(tuple(notes), "This machine does not work for others."),
        "settings": _listing(_pairs(told.policy), "Nothing is set."),
        "facts": _listing(_pairs(told.facts), "Nothing is known."),
    }


def _reason(each: Reason, gpus: Mapping[str, str], now_us: int) -> Note:
    about = f"{gpus.get(each.gpu, plain(each.gpu))}: " if each.gpu else ""
    since = f" (for {age(now_us - each.since_us)})" if each.since_us else ""
    return Note("weak", f"{about}{plain(each.text)}{since}", (f"→ {plain(each.fix)}",) if each.fix else ())


def _pairs(facts: Mapping[str, str]) -> list[Row]:
    return [(plain(name), plain(value)) for name, value in facts.items()]


# The machine


def _findings(known: Known) -> Notes:
    problem = known.problems.get("doctor", "")
    if known.findings is None or problem:
        return Notes((), problem or "Looking at this machine, which takes some seconds …")
    order = {"missing": 0, "weak": 1, "good": 2}
    found = sorted(known.findings, key=lambda each: order[each.state])
    return Notes(tuple(_finding(each) for each in found), "Nothing was found.")


def _line(text: str) -> str:
    """An error of several lines as one."""
    return plain(" ".join(text.split()))


def _finding(each: Finding) -> Note:
    fix = f"→ {plain(each.fix)}" if each.fix else ""
    return Note(each.state, each.about, tuple(line for line in (plain(each.says), plain(each.means), fix) if line))
