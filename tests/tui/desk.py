"""A control socket that answers as nodes do, with what the test says: for what a real node cannot be made to say."""

import asyncio
from pathlib import Path

import msgspec

from potluck import wire
from potluck.errors import Error
from potluck.frames import FrameReader, encode_frame
from potluck.wire import Failure, control
from potluck.wire.control import CallStatus, PeerStatus, WorkerStatus
from potluck.wire.doctor import AskReach, ReachReport
from potluck.wire.policy import AskPolicy, PolicyTold, Reason
from potluck.wire.verify import AskPeers, PeerFacts, PeersKnown

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND


def a_status(**changes) -> control.Status:
    """A machine that lends two cores and does nothing."""
    plain = control.Status(
        question=0, name="ann", peer="12D3KooWAnn", version="0.1.0", mesh="local", now_us=NOW,
        started_us=NOW - 75 * SECOND, offering=True, paused="", tier="bwrap", cpu_milli=2000, cpu_free_milli=2000,
        memory_mib=2048, memory_free_mib=2048,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def a_worker(name="ann-1", state="running", caller="12D3KooWBob", since_us=NOW - 12 * SECOND) -> WorkerStatus:
    return WorkerStatus(name, "train", caller, state, since_us)


def a_call(inputs=30, waiting=18, note="", call="1.1") -> CallStatus:
    return CallStatus(call, "train", inputs, waiting, note)


def a_peer(name="bob", peer="12D3KooWBob", state="open", **changes) -> PeerStatus:
    plain = PeerStatus(peer, name, state, connected=True, slots_free=2, cpu_milli=4000, memory_mib=8192)
    return msgspec.structs.replace(plain, **changes)


def facts_of(name="bob", peer="12D3KooWBob", level="stranger", **changes) -> PeerFacts:
    return msgspec.structs.replace(PeerFacts(peer, name, level, "nothing is known", False), **changes)


class Desk:
    """`facts` are what it knows of its peers.

    `refuse` and `silent` are what it does to everything but the greeting; `greet` is what it answers to that.
    """

    def __init__(self, path: Path, status: control.Status | None = None) -> None:
        self.path, self.status = path, status or a_status()
        self.facts: tuple[PeerFacts, ...] = ()
        self.reasons: tuple[Reason, ...] = ()
        self.owner, self.journal = "", []
        self.refuse: dict[type, Error] = {}
        self.greet: Error | None = None
        self.garbage = b""
        self.silent = False
        self.asked: list[object] = []
        self.left = asyncio.Event()
        self._connections: dict[asyncio.Task, asyncio.StreamWriter] = {}

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_):
        await self.stop()

    async def stop(self) -> None:
        self._server.close()
        for writer in self._connections.values():
            writer.close()
        await asyncio.gather(*self._connections)
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader, writer) -> None:
        self._connections[asyncio.current_task()] = writer
        frames = FrameReader()
        while data := await reader.read(65536):
            for frame in frames.feed(data):
                answer = self._answer(wire.decode(frame, control.ToNode))
                if answer is not None:
                    writer.write(self.garbage or encode_frame(wire.encode(answer)))
        self.left.set()
        writer.close()

    def _answer(self, message):
        if isinstance(message, control.Hello):
            if self.greet:
                return control.Refusal(0, Failure.of(self.greet))
            return control.Welcome(wire.PROTOCOL, "0.1.0", self.status.peer, self.status.name, self.status.mesh, 1)
        self.asked.append(message)
        if self.silent:
            return None
        if error := self.refuse.get(type(message)):
            return control.Refusal(message.question, Failure.of(error))
        if isinstance(message, control.AskStatus):
            return msgspec.structs.replace(self.status, question=message.question)
        if isinstance(message, control.AskJournal):
            # One at a time: as if each filled a page.
            page = self.journal[message.after : message.after + 1]
            more = message.after + 1 < len(self.journal)
            return control.JournalAnswer(message.question, self.owner, tuple(page), more)
        if isinstance(message, AskPolicy):
            return PolicyTold(message.question, not self.reasons, self.reasons, {"idle": "3 s"}, {"preset": "polite"})
        if isinstance(message, AskReach):
            return ReachReport(message.question, "open", port=0)
        if isinstance(message, AskPeers):
            return PeersKnown(message.question, self.status.mesh, NOW, self.facts)
        return control.Done(message.question)
