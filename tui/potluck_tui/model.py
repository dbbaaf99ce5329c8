"""What the screen says, from what the node says. Pure: a `Status` (and an earlier one) in, rows of words out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from potluck.wire.control import CallStatus, PeerStatus, Status, WorkerStatus
from potluck_tui.words import PEER_TAIL, age, cores, counted, duration, memory, plain, uptime

Row = tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """`state` is lends, paused or calls (only calls); `sentence` explains it."""

    name: str
    mesh: str
    state: str
    sentence: str
    about: str


@dataclass(frozen=True)
class Device:
    """Something lent: `used` of `total`, in whatever unit; `words` says it readably. A GPU that was read has `cells` of
    figures, and its `words` are its model."""

    name: str
    used: int
    total: int
    words: str
    cells: Row = ()
    uuid: str = ""


@dataclass(frozen=True)
class Listing:
    """Rows of equally many cells, under headings if there are any; `empty` is said instead of none. `left_out` counts
    rows beyond those. With `keys`, one for each row, one of them is chosen."""

    rows: tuple[Row, ...]
    empty: str
    head: Row = ()
    left_out: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """All that the screen shows."""

    machine: Machine
    devices: tuple[Device, ...]
    workers: Listing
    calls: Listing
    peers: Listing
    ledger: tuple[Row, ...]


def make_view(now: Status, before: Status | None = None) -> View:
    """`before` is an earlier status of the same node, from which rates are computed."""
    return View(_machine(now), _devices(now), _workers(now), _calls(now, before), _peers(now), _ledger(now))


# The machine


def _machine(now: Status) -> Machine:
    state = "calls" if not now.offering else "paused" if now.paused else "lends"
    sentence = {"calls": _calls_only, "paused": _paused, "lends": _lends}[state](now)
    about = f"up {uptime(now.now_us - now.started_us)} · potluck {plain(now.version)}"
    return Machine(plain(now.name), plain(now.mesh), state, sentence, about)


def _calls_only(_now: Status) -> str:
    return "Only calls: this machine lends nothing."


def _paused(now: Status) -> str:
    running = sum(worker.state == "running" for worker in now.workers)
    rest = f", {counted(running, 'input')} still running" if running else ""
    return f"Paused: no new work{rest}. Reason: “{plain(now.paused)}”."


def _lends(now: Status) -> str:
    sandbox = f", each caller in a sandbox ({plain(now.tier)})" if now.tier else ""
    gpus = f", {counted(len(now.gpus), 'GPU')}" if now.gpus else ""
    return f"Lends {cores(now.cpu_milli)}, {memory(now.memory_mib)}{gpus}{sandbox}."


# Devices


def _devices(now: Status) -> tuple[Device, ...]:
    if not now.offering:
        return ()
    cpu_used, memory_used = now.cpu_milli - now.cpu_free_milli, now.memory_mib - now.memory_free_mib
    return (
        Device("Cores", cpu_used, now.cpu_milli, f"{cpu_used / 1000:g} of {now.cpu_milli / 1000:g} in use"),
        Device("Memory", memory_used, now.memory_mib, f"{_of(memory_used, now.memory_mib)} in use"),
    )


def _of(used_mib: int, total_mib: int) -> str:
    return f"{memory(used_mib)} of {memory(total_mib)}"


# Workers: what this machine does for others


def _workers(now: Status) -> Listing:
    order = {"running": 0, "starting": 1, "idle": 2}
    found = sorted(now.workers, key=lambda worker: (order.get(worker.state, 3), worker.worker))
    name = namer(now)
    empty = "Nobody uses this machine now." if now.offering else "This machine runs nothing for others."
    return Listing(tuple(_worker(worker, name, now.now_us) for worker in found), empty)


def _worker(worker: WorkerStatus, name: Callable[[str], str], now_us: int) -> Row:
    since = f"for {age(now_us - worker.since_us)}" if worker.since_us else ""
    state = "ready, unused" if worker.state == "idle" else plain(worker.state)
    return plain(worker.worker), plain(worker.function), f"for {name(worker.caller)}", state, since


def namer(now: Status) -> Callable[[str], str]:
    """Peer ids as names, where a peer has told its own; two that use one name are told apart by the ids' ends."""
    names = {peer.peer: plain(peer.name) for peer in now.peers if peer.name}
    uses = Counter([*names.values(), plain(now.name)])

    def name(peer: str) -> str:
        if peer == now.peer:
            return "this machine"
        tail = plain(peer[-PEER_TAIL:])
        found = names.get(peer, "")
        return tail if not found else found if uses[found] == 1 else f"{found} {tail}"

    return name


# Calls placed from here


def _calls(now: Status, before: Status | None) -> Listing:
    earlier = {call.call: call for call in before.calls} if before else {}
    elapsed_us = now.now_us - before.now_us if before else 0
    rows = tuple(_call(call, earlier.get(call.call), elapsed_us) for call in now.calls)
    return Listing(rows, "No calls from here now.")


def _call(call: CallStatus, before: CallStatus | None, elapsed_us: int) -> Row:
    done = call.inputs - call.waiting
    rate = ""
    if before and elapsed_us > 0 and done > (was := before.inputs - before.waiting):
        rate = f"{(done - was) * 1_000_000 / elapsed_us:.1f}/s"
    return plain(call.function), f"{done} of {call.inputs} done", rate, plain(call.note)


# Peers


def _peers(now: Status) -> Listing:
    found = sorted(now.peers, key=lambda peer: (not peer.connected, peer.state != "open", peer.name, peer.peer))
    name = namer(now)
    empty = "No peers yet. Join others with: potluck up --bootstrap ADDRESS"
    return Listing(tuple(_peer(peer, name(peer.peer)) for peer in found), empty)


def _peer(peer: PeerStatus, name: str) -> Row:
    lends, note = _peer_lends(peer), _peer_note(peer)
    return (name, peer_state(peer), lends, note) if lends else (name, peer_state(peer), note or "lends nothing", "")


def peer_state(peer: PeerStatus) -> str:
    """In a word or two: whether work could start there now."""
    if not peer.connected:
        return "not connected"
    if peer.state != "open":
        return plain(peer.state)
    return f"{peer.slots_free} free" if peer.slots_free > 0 else "busy"


def _peer_lends(peer: PeerStatus) -> str:
    parts = [cores(peer.cpu_milli), memory(peer.memory_mib)] if peer.cpu_milli or peer.memory_mib else []
    parts += [f"{count}× {plain(model)}" for model, count in Counter(peer.gpus).items()]
    return ", ".join(parts)


def _peer_note(peer: PeerStatus) -> str:
    near = f"{peer.rtt_us / 1000:.1f} ms away" if peer.rtt_us else ""
    return " · ".join(part for part in (near, plain(peer.note)) if part)


# Ledger


def _ledger(now: Status) -> tuple[Row, ...]:
    given, used = sum(account.given_us for account in now.accounts), sum(account.used_us for account in now.accounts)
    inputs_given = sum(account.inputs_given for account in now.accounts)
    inputs_used = sum(account.inputs_used for account in now.accounts)
    return (
        ("Given", duration(given), f"{counted(inputs_given, 'input')} run for others"),
        ("Used", duration(used), f"{counted(inputs_used, 'input')} run by others"),
        ("Balance", signed(given - used), f"{_verdict(given - used)}; {counted(now.entries, 'receipt')}"),
    )


def signed(us: int) -> str:
    """A duration with its sign."""
    return f"+{duration(us)}" if us > 0 else duration(us)


def _verdict(balance_us: int) -> str:
    if not balance_us:
        return "even"
    return "gave more than it used" if balance_us > 0 else "used more than it gave"
