"""A control socket that answers as nodes do, with what the test says: for what a real node cannot be made to say."""

import asyncio
from pathlib import Path

import msgspec

from potluck import wire
from potluck.errors import Error, InvalidError
from potluck.frames import FrameReader, encode_frame
from potluck.wire import Failure, control
from potluck.wire.apps import AppLogs, AppStopped, AskAppLogs, LogLine, StopApp
from potluck.wire.control import CallStatus, ImageFacts, PeerStatus, StoreFacts, WorkerStatus
from potluck.wire.doctor import AskReach, ReachReport
from potluck.wire.history import AskGpus, AskMachineHistory, GpuNow, GpuSpan, GpusTold, GpuUser, HistoryTold, Span
from potluck.wire.pins import PinImage
from potluck.wire.policy import AskPolicy, PolicyTold, Reason, SetPolicy
from potluck.wire.state import AskState, Holder, Holders, ListHolders, StateAnswered, StateRequest
from potluck.wire.verify import AskPeers, PeerFacts, PeersKnown
from potluck.wire.volumes import AskHead, VolumeAt, VolumeHeads
from potluck_images.keep_facts import Pruned

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
BUSY_HERE = Reason("user-active", "Somebody is [here].", "Leave it for 5 min.")


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


def a_call(inputs=30, waiting=18, note="", call="1.1", function="train") -> CallStatus:
    return CallStatus(call, function, inputs, waiting, note, app="lab")


def a_peer(name="bob", peer="12D3KooWBob", state="open", **changes) -> PeerStatus:
    plain = PeerStatus(peer, name, state, connected=True, slots_free=2, cpu_milli=4000, memory_mib=8192)
    return msgspec.structs.replace(plain, **changes)


def facts_of(name="bob", peer="12D3KooWBob", level="stranger", **changes) -> PeerFacts:
    return msgspec.structs.replace(PeerFacts(peer, name, level, "nothing is known", False), **changes)


def a_gpu(uuid="GPU-0", load=420, users=(("12D3KooWBob", "train"),), **changes) -> GpuNow:
    reading = GpuSpan(uuid, load, 12 * 1024, 61, 100_400, 1000)
    plain = GpuNow(reading, "NVIDIA H100", 80 * 1024, "leased", tuple(GpuUser(*each, "running") for each in users))
    return msgspec.structs.replace(plain, **changes)


class Desk:
    """`facts` are what it knows of its peers.

    `refuse` and `silent` are what it does to everything but the greeting; `greet` is what it answers to that.
    """

    def __init__(self, path: Path, status: control.Status | None = None) -> None:
        self.path, self.status = path, status or a_status()
        self.facts: tuple[PeerFacts, ...] = ()
        self.gpus: tuple[GpuNow, ...] = ()
        self.images: tuple[ImageFacts, ...] = ()
        self.store = StoreFacts(3 << 30, 2 << 30, 1 << 30, 16 << 30, 100, 7 << 30)
        # By id: the name, and the envelope of the head.
        self.volumes: dict[str, tuple[str, bytes]] = {}
        self.prints: list[LogLine] = []
        self.today = Span(NOW, 86400)
        self.spans: tuple[Span, ...] = ()
        self.reasons: tuple[Reason, ...] = ()
        self.policy = 'preset = "always"\n'
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
            if "wrong" in message.text:
                what = "There is no [setting] 'wrong'."
                return control.Refusal(message.question, Failure.of(InvalidError(what, fix="Take 'windows'.")))
            reasons = (BUSY_HERE,) if "idle" in message.text else self.reasons
            text = message.text or self.policy
            return PolicyTold(message.question, not reasons, reasons, {"idle": "3 s"}, {"preset": "polite"}, 0, text)
        if isinstance(message, SetPolicy):
            self.policy = message.text
        if isinstance(message, control.AskImages):
            return control.Images(message.question, self.images, self.store)
        if isinstance(message, control.PruneImages):
            self.images = tuple(each for each in self.images if each.image not in message.images)
            return control.ImagesPruned(message.question, Pruned(message.images, (), 5 << 20))
        if isinstance(message, PinImage):
            pins = ("owner",) * message.pin
            self.images = tuple(
                msgspec.structs.replace(each, pins=pins) if each.image == message.image else each
                for each in self.images
            )
        if isinstance(message, AskAppLogs):
            return AppLogs(message.question, tuple(each for each in self.prints if each.number > message.after))
        if isinstance(message, StopApp):
            return AppStopped(message.question, 2, False)
        if isinstance(message, AskState):
            return StateAnswered(message.question, wire.encode(self._state(wire.decode(message.payload, StateRequest))))
        if isinstance(message, AskGpus):
            return GpusTold(message.question, NOW, self.gpus, self.today)
        if isinstance(message, AskMachineHistory):
            return HistoryTold(message.question, NOW, self.spans)
        if isinstance(message, AskReach):
            return ReachReport(message.question, "open", port=0)
        if isinstance(message, AskPeers):
            return PeersKnown(message.question, self.status.mesh, NOW, self.facts)
        return control.Done(message.question)

    def _state(self, request):
        if isinstance(request, ListHolders):
            holders = [Holder("volume", id, name, NOW) for id, (name, _) in self.volumes.items()]
            return Holders(tuple(holders[: request.most]))
        if isinstance(request, AskHead):
            return VolumeAt(4, "ab" * 32, b"", 1, 2)
        return VolumeHeads((self.volumes[request.id][1],))
