"""What this machine's GPUs do and did: looks of the provider's watch, kept minute by minute in one file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from potluck.wire import history as messages
from potluck.wire.history import CELLS_MAX, UNKNOWN, USERS_MAX, GpuNow, GpuSpan, GpuUser, Span
from potluck_ledger.entries import Receipt, parsed
from potluck_ledger.journal import Journal
from potluck_ledger.machine_time import machine_us
from potluck_node.clock import Clock
from potluck_node.core.gpus import GpuDesk
from potluck_node.core.history import KEPT_S, Minutes, decoded, encoded, stepped, thinned
from potluck_node.devices.interface import Device

if TYPE_CHECKING:
    from potluck_node.node import Node
    from potluck_node.provider import Provider

log = logging.getLogger("potluck.history")

# A week of eight GPUs, minute by minute, is 6 MiB; what is over is thinned to half of it.
FILE_BYTES_MAX = 8 << 20
# Of one question, whoever asks.
LOOK_EVERY_S = 1.0
# Receipts read at once: they are small, and a node that is asked for nothing for a minute has few.
RECEIPTS_PAGE = 1000
DAY_US = 86_400_000_000


class HistoryFile:
    """Lines of spans, appended. Nothing waits for the disk: what a power cut takes is a minute. Blocking."""

    def __init__(self, path: Path, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path, self._bytes_max = path, bytes_max

    def read(self) -> list[Span]:
        """All that is whole. Raises `OSError`."""
        try:
            return decoded(self._path.read_bytes())
        except FileNotFoundError:
            return []

    def append(self, span: Span) -> None:
        """Raises `OSError`."""
        # A line that a crash cut off ends here, and is no line.
        with open(self._path, "ab", opener=_private) as file:
            file.write(b"\n" + encoded(span))
            size = file.tell()
        if size > self._bytes_max:
            self.tidy(span.at_us)

    def tidy(self, now_us: int) -> None:
        """Forget what is too old, and make room. Raises `OSError`."""
        spans = thinned(self.read(), now_us, self._bytes_max // 2, lambda span: len(encoded(span)))
        fresh = self._path.with_suffix(".new")
        with open(fresh, "wb", opener=_private) as file:
            file.write(b"".join(map(encoded, spans)))
            # This one time: what it takes the place of is a week.
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)


def _private(path: str, flags: int) -> int:
    """When a machine is used is its owner's business."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class HistoryDesk:
    """`provider` is None on a node that lends nothing, and then has nothing to tell."""

    def __init__(self, file: HistoryFile, provider: Provider | None, journal: Journal, clock: Clock) -> None:
        self._file, self._provider, self._journal, self._clock = file, provider, journal, clock
        self._minutes = Minutes()
        self._lock = trio.Lock()
        self._asking = trio.Lock()
        self._sequence = journal.head()[0]
        self._devices: tuple[Device, ...] = ()
        self._looked_at = -LOOK_EVERY_S
        # What was given since midnight, by the minutes that are in the file.
        self._today: Span | None = None
        self._tidied_at_us = clock.now_us()
        self._is_broken = False

    # Kept

    async def seen(self, devices: tuple[Device, ...]) -> None:
        """The watch has looked."""
        self._devices, self._looked_at = devices, trio.current_time()
        now_us = self._clock.now_us()
        # Before they are counted: what came meanwhile is of the minute that is over.
        self._count()
        await self._keep(self._minutes.look(map(self._reading, devices), now_us), now_us)

    async def _keep(self, span: Span | None, now_us: int) -> None:
        if span is None:
            return
        async with self._lock:
            if self._today is not None:
                self._today = _added(self._today, span)
            try:
                await trio.to_thread.run_sync(self._file.append, span)
                if now_us - self._tidied_at_us >= DAY_US:
                    self._tidied_at_us = now_us
                    await trio.to_thread.run_sync(self._file.tidy, now_us)
                self._is_broken = False
            except OSError as error:
                if not self._is_broken:
                    log.warning("the history of the GPUs is not kept: %s", error)
                self._is_broken = True

    def _count(self) -> None:
        """Receipts that came into the journal since."""
        while self._sequence < self._journal.head()[0]:
            records = list(self._journal.records(self._sequence, RECEIPTS_PAGE))
            if not records:
                return
            self._sequence += len(records)
            receipts = {each.lease: each for each in self._given(record.content for record in records)}
            self._minutes.gave(
                sum(each.inputs for each in receipts.values()),
                sum(each.lease_us for each in receipts.values()),
                sum(machine_us(receipts.values()).values()),
            )

    def _given(self, contents: Iterator[bytes]) -> Iterator[Receipt]:
        for data in contents:
            envelope, content = parsed(data)
            is_whole = len(envelope.signatures) == 2
            if isinstance(content, Receipt) and content.provider == self._journal.owner and is_whole:
                yield content

    # Told

    async def answer(self, question: messages.HistoryQuestion) -> messages.HistoryReply:
        """Raises `OSError` never: what cannot be read is as if it were not there."""
        async with self._asking:
            if isinstance(question, messages.AskMachineHistory):
                return await self._told(question)
            watch = self._provider.gpus if self._provider else None
            if watch and trio.current_time() - self._looked_at >= LOOK_EVERY_S:
                await watch.look()
            self._count()
            return await self._now(question.question)

    async def _told(self, question: messages.AskMachineHistory) -> messages.HistoryTold:
        spans, now_us = await self._read(), self._clock.now_us()
        since_us = max(question.since_us, now_us - KEPT_S * 1_000_000)
        if running := self._minutes.now():
            spans.append(running)
        found = [span for span in spans if span.at_us + span.step_s * 1_000_000 > since_us]
        # A week of eight GPUs takes a tenth of a second.
        told = await trio.to_thread.run_sync(stepped, found, question.step_s, CELLS_MAX)
        models = {device.uuid: device.model for device in self._devices}
        return messages.HistoryTold(question.question, now_us, tuple(told), models)

    async def _read(self) -> list[Span]:
        async with self._lock:
            try:
                return await trio.to_thread.run_sync(self._file.read)
            except OSError as error:
                log.warning("the history of the GPUs cannot be read: %s", error)
                return []

    async def _now(self, number: int) -> messages.GpusTold:
        now_us = self._clock.now_us()
        midnight_us = now_us // DAY_US * DAY_US
        if self._today is None or self._today.at_us != midnight_us:
            kept = [span for span in await self._read() if span.at_us >= midnight_us]
            self._today = _summed(midnight_us, kept)
        running = self._minutes.now()
        today = _added(self._today, running) if running else self._today
        return messages.GpusTold(number, now_us, tuple(self._gpus()), today)

    def _gpus(self) -> Iterator[GpuNow]:
        if self._provider is None:
            return
        states = {gpu.uuid: gpu.state for gpu in self._provider.core.gpus.offers()}
        workers = {name: GpuUser(caller, function, state) for name, function, caller, state, _ in
                   self._provider.core.workers()}  # fmt: skip
        holders = self._provider.core.gpus.holders()
        for device in self._devices:
            users = [workers[name] for name, hold in holders.items() if name in workers and hold.has(device.uuid)]
            state = states.get(device.uuid, device.fault)
            yield GpuNow(self._reading(device), device.model, device.memory_mib, state, tuple(users[:USERS_MAX]))

    def _reading(self, device: Device) -> GpuSpan:
        lent = lent_milli(self._provider.core.gpus, device.uuid) if self._provider else 0
        if device.fault:
            return GpuSpan(device.uuid, lent_milli=lent)
        used_mib = device.memory_mib - device.memory_free_mib
        return GpuSpan(
            device.uuid,
            _known(device.load_milli),
            used_mib,
            _known(device.temperature_c),
            _known(device.power_mw),
            lent,
        )


def _known(value: int | None) -> int:
    return UNKNOWN if value is None else value


def lent_milli(desk: GpuDesk, uuid: str) -> int:
    """Thousandths of a GPU that workers hold."""
    held = 0
    for hold in desk.holders().values():
        for gpu in hold.gpus:
            if gpu.uuid == uuid:
                held += hold.share_mib * 1000 // max(1, gpu.memory_mib) if hold.share_mib else 1000
    return min(1000, held)


def _added(today: Span, span: Span) -> Span:
    if span.at_us < today.at_us or span.at_us >= today.at_us + DAY_US:
        return today
    return _summed(today.at_us, [today, span])


def _summed(at_us: int, spans: Sequence[Span]) -> Span:
    sums = (
        sum(span.inputs for span in spans),
        sum(span.given_us for span in spans),
        sum(span.gpu_us for span in spans),
    )
    return Span(at_us, DAY_US // 1_000_000, (), *sums)


def of(node: Node, clock: Clock) -> HistoryDesk:
    """That of a node, told of every look at its GPUs."""
    made = HistoryDesk(HistoryFile(node.home.history), node.provider, node.journal, clock)
    if node.provider and node.provider.gpus:
        node.provider.gpus.on_look = made.seen
    return made
