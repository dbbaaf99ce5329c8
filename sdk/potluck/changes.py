"""What has changed between two looks at a node, in words and for programs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from potluck.wire.control import CallStatus, Status, WorkerStatus

# What the owner may want to be told while looking elsewhere.
IMPORTANT = ("paused", "resumed", "warning", "used", "gpu", "reason")


class Change(msgspec.Struct, frozen=True):
    """`kind` is a word for programs; `at_us` Unix microseconds."""

    kind: str
    at_us: int
    text: str

    @property
    def is_important(self) -> bool:
        return self.kind in IMPORTANT


def changes(before: Status | None, now: Status) -> Iterator[Change]:
    """From an earlier look at the same node; without one, or after a restart, what there is."""
    if before is None or before.started_us != now.started_us:
        lends = "calls only" if not now.offering else f"paused: {now.paused}" if now.paused else "lends"
        yield Change("up", now.now_us, f"{now.name} is up on mesh {now.mesh}; it {lends}")
        before = None
    yield from _pauses(before, now)
    yield from _workers(before, now)
    yield from _gpus(before, now)
    yield from _calls(before, now)
    yield from _peers(before, now)


def _pauses(before: Status | None, now: Status) -> Iterator[Change]:
    if before and before.paused != now.paused:
        text = f"paused: {now.paused}" if now.paused else "lends again"
        yield Change("paused" if now.paused else "resumed", now.now_us, text)
    if now.warning and (before is None or before.warning != now.warning):
        yield Change("warning", now.now_us, now.warning)


def _workers(before: Status | None, now: Status) -> Iterator[Change]:
    was = {worker.worker: worker for worker in before.workers} if before else {}
    names = _names(now)
    if now.workers and not any(_busy(worker) for worker in was.values()) and any(map(_busy, now.workers)):
        who = sorted({names(worker.caller) for worker in now.workers if _busy(worker)})
        yield Change("used", now.now_us, f"used by {', '.join(who)}")
    for worker in now.workers:
        old = was.pop(worker.worker, None)
        if _busy(worker) and not (old and _busy(old)):
            yield Change("runs", now.now_us, f"{worker.function} runs for {names(worker.caller)} on {worker.worker}")
        elif old and _busy(old) and not _busy(worker):
            yield Change("done", now.now_us, f"{worker.function} is done on {worker.worker}, {_took(old, now)}")
    for old in was.values():
        ended = f", {_took(old, now)}" if _busy(old) else ""
        yield Change("ended", now.now_us, f"{old.worker} of {names(old.caller)} is gone{ended}")


def _busy(worker: WorkerStatus) -> bool:
    return worker.state == "running"


def _took(worker: WorkerStatus, now: Status) -> str:
    return f"after {max(0, now.now_us - worker.since_us) / 1e6:.1f} s"


def _gpus(before: Status | None, now: Status) -> Iterator[Change]:
    was = {gpu.uuid: gpu.state for gpu in before.gpus} if before else {}
    for gpu in now.gpus:
        if before and was.get(gpu.uuid) != gpu.state:
            yield Change("gpu", now.now_us, f"{gpu.model} is {gpu.state}")
    for uuid in was.keys() - {gpu.uuid for gpu in now.gpus}:
        yield Change("gpu", now.now_us, f"{uuid} is not lent any more")


def _calls(before: Status | None, now: Status) -> Iterator[Change]:
    was = {call.call: call for call in before.calls} if before else {}
    for call in now.calls:
        old = was.pop(call.call, None)
        if old is None:
            yield Change("call", now.now_us, f"a call of {call.function} begins, {call.inputs} inputs so far")
        elif (old.inputs, old.waiting, old.note) != (call.inputs, call.waiting, call.note):
            yield Change("progress", now.now_us, _progress(call))
    for old in was.values():
        yield Change("returned", now.now_us, f"a call of {old.function} is over")


def _progress(call: CallStatus) -> str:
    note = f": {call.note}" if call.note else ""
    return f"{call.function}, {call.inputs - call.waiting} of {call.inputs} done{note}"


def _peers(before: Status | None, now: Status) -> Iterator[Change]:
    was = {peer.peer: peer for peer in before.peers} if before else {}
    for peer in now.peers:
        old = was.pop(peer.peer, None)
        if old is None or old.state != peer.state:
            yield Change("peer", now.now_us, f"{peer.name} is {peer.state}" + (f": {peer.note}" if peer.note else ""))
    for old in was.values():
        yield Change("peer", now.now_us, f"{old.name} is gone")


def _names(now: Status) -> Callable[[str], str]:
    known = {peer.peer: peer.name for peer in now.peers} | {now.peer: "this machine"}
    return lambda peer: known.get(peer, f"…{peer[-8:]}")
