"""What pages need beside the status: asked of the node, or found out on this machine, while they are in sight. No
textual here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from math import inf
from tempfile import TemporaryFile
from typing import IO

import msgspec

from potluck import wire
from potluck.errors import Error, ExecutionError
from potluck.wire import control
from potluck.wire.apps import AppLogs, AskAppLogs
from potluck.wire.doctor import AskReach, Finding, ReachReport
from potluck.wire.history import AskGpus, AskMachineHistory, GpusTold, HistoryTold
from potluck.wire.policy import AskPolicy, PolicyTold
from potluck.wire.state import AskState, Holders, ListHolders, StateAnswered, StateRequest
from potluck.wire.verify import AskPeers, PeersKnown
from potluck.wire.volumes import AskHead, AskHeads, VolumeAt, VolumeHeads
from potluck_tui.acts import WORK_TIMEOUT_S
from potluck_tui.disk import Disk, VolumeFacts
from potluck_tui.gpus import DAY_US
from potluck_tui.link import Link
from potluck_tui.logs import Tail
from potluck_tui.pages import Known
from potluck_tui.source import AnswerT, Source

# How often each page asks again. Peers' records change with verdicts, not with each input; to try sandboxes, look
# through all images, or verify a journal is work: that is done when the page is opened, and when the person says so.
EVERY_S = {"overview": 2.0, "calling": 1.0, "mesh": 2.0, "images": inf, "policy": 2.0, "account": inf, "doctor": inf}
# Trying sandboxes takes about a second; a hung GPU driver is given up on after ten.
DOCTOR_TIMEOUT_S = 60.0
# Each is asked for by itself; `potluck volume list` has all.
VOLUMES_MAX = 20
# Entries verified for a page: about ten seconds of one core, and 20 MiB.
ENTRIES_MAX = 20_000
# A hundred findings are 30 KiB. The end of what a failure says is what matters.
DOCTOR_BYTES_MAX, SAID_MAX = 1 << 20, 500
DOCTOR_POLL_S, END_TIMEOUT_S = 0.05, 1.0
# The node gathers by the minute; a machine that lends no GPU has nothing to read in between either.
HISTORY_EVERY_S, HISTORY_STEP_S = 60.0, 300
DOCTOR = (sys.executable, "-m", "potluck_node.doctor")


class Looks:
    """`known` is what was found so far; `has_gpus` whether the node lends any."""

    def __init__(self, link: Link, source: Source) -> None:
        self.known = Known()
        self.has_gpus = False
        self._tail = Tail("", "")
        self._link, self._source = link, source
        self._at: dict[str, float] = {}
        self._history_at = -inf
        self._under_way: set[str] = set()
        self._ways: dict[str, Callable[[], Awaitable[None]]] = {
            "overview": self._gpus,
            "calling": self._prints,
            "images": self._disk,
            "mesh": self._peers,
            "account": self._books,
            "policy": self._policy,
            "doctor": self._doctor,
        }

    def choose_call(self, app: str, function: str) -> None:
        """Whose prints are wanted."""
        if (app, function) != (self._tail.app, self._tail.function):
            self._tail = Tail(app, function)
            self.known = replace(self.known, tail=())
            self.forget("calling")

    def forget(self, page: str) -> None:
        """Look again soon, however fresh it is."""
        self._at.pop(page, None)

    def slow(self, page: str) -> bool:
        """Whether it is looked at only when the person says so."""
        return page in self._ways and EVERY_S[page] == inf

    def due(self, page: str) -> bool:
        """Whether `look` would find news."""
        if page not in self._ways or page in self._under_way:
            return False
        every_s = EVERY_S[page]
        if page == "overview" and not self.has_gpus:
            every_s = HISTORY_EVERY_S
        return page not in self._at or time.monotonic() >= self._at[page] + every_s

    async def look(self, page: str) -> None:
        """What cannot be found out is a problem in words."""
        self._under_way.add(page)
        self._at[page] = time.monotonic()
        try:
            await self._ways[page]()
        except Error as error:
            self._problem(page, str(error))
        else:
            self._problem(page, "")
        finally:
            self._under_way.discard(page)

    def _problem(self, page: str, text: str) -> None:
        self.known = replace(self.known, problems={**self.known.problems, page: text})

    async def _gpus(self) -> None:
        found = await self._link.ask(AskGpus, GpusTold)
        self.known = replace(self.known, gpus=found)
        if found.gpus and time.monotonic() >= self._history_at + HISTORY_EVERY_S:
            since_us = found.now_us - DAY_US
            told = await self._link.ask(lambda number: AskMachineHistory(number, since_us, HISTORY_STEP_S), HistoryTold)
            self._history_at = time.monotonic()
            self.known = replace(self.known, history=told)

    async def _prints(self) -> None:
        """Of the chosen call; page by page, as far as there is something new."""
        tail, before = self._tail, -1
        while tail.app and tail.after > before:
            before = tail.after
            # With a wait, however short, an app that has printed nothing is no error.
            told = await self._link.ask(lambda number: AskAppLogs(number, tail.app, tail.after, 1), AppLogs)
            tail.add(told.lines)
        if tail is self._tail:
            self.known = replace(self.known, tail=tail.rows())

    async def _disk(self) -> None:
        told = await self._link.ask(control.AskImages, control.Images, WORK_TIMEOUT_S)
        self.known = replace(self.known, disk=Disk(told.images, told.store))
        volumes, more = await self._volumes()
        self.known = replace(self.known, disk=Disk(told.images, told.store, volumes, more))

    async def _volumes(self) -> tuple[tuple[VolumeFacts, ...], bool]:
        from potluck_ledger.envelope import EnvelopeError
        from potluck_ledger.volume_heads import read_head

        listed = await self._state(ListHolders("volume", 0, VOLUMES_MAX + 1), Holders)
        found = []
        for each in listed.holders[:VOLUMES_MAX]:
            at = await self._state(AskHead(each.id), VolumeAt)
            heads = await self._state(AskHeads(each.id), VolumeHeads)
            size, at_us = 0, 0
            # What the node keeps of a head was verified; one that does not read is shown without its figures.
            with suppress(EnvelopeError, IndexError):
                head, _ = read_head(heads.envelopes[0])
                size, at_us = head.bytes, head.at_us
            found.append(VolumeFacts(each.name, at.version, size, at_us, at.copies, at.wanted))
        return tuple(found), len(listed.holders) > VOLUMES_MAX

    async def _state(self, request: StateRequest, kind: type[AnswerT]) -> AnswerT:
        payload = wire.encode(request)
        told = await self._link.ask(lambda number: AskState(number, payload), StateAnswered)
        return wire.decode(told.payload, kind)

    async def _peers(self) -> None:
        found = await self._link.ask(AskPeers, PeersKnown)
        self.known = replace(self.known, peers=found)

    async def _policy(self) -> None:
        found = await self._link.ask(AskPolicy, PolicyTold)
        self.known = replace(self.known, policy=found)

    async def _books(self) -> None:
        from potluck_ledger.journal import Record
        from potluck_tui.books import make_books

        records: list[Record] = []
        more, owner = True, ""
        while more:
            if len(records) >= ENTRIES_MAX:
                fix = "See: potluck ledger report --by day"
                raise ExecutionError(f"There are more than {ENTRIES_MAX} receipts, too many for a page.", fix=fix)
            after = len(records)
            answer = await self._link.ask(lambda each, at=after: control.AskJournal(each, at), control.JournalAnswer)  # type: ignore[misc]
            records += [Record(*pair) for pair in answer.records]
            more, owner = answer.more, answer.owner
        books = await asyncio.to_thread(make_books, owner, records)
        self.known = replace(self.known, books=books)

    async def _doctor(self) -> None:
        from potluck.cli import reach

        machine = await self._source.examine()
        report = await self._link.ask(AskReach, ReachReport)
        self.known = replace(self.known, findings=(*machine, *reach.findings(report)))


async def examine() -> list[Finding]:
    """This machine as `potluck doctor` finds it. Raises `ExecutionError`."""
    with TemporaryFile() as out, TemporaryFile() as said:
        # Not asyncio's: that one can be ended for sure only by awaiting, which a cancelled task may not get to.
        process = subprocess.Popen(DOCTOR, stdin=subprocess.DEVNULL, stdout=out, stderr=said)  # noqa: ASYNC220
        try:
            async with asyncio.timeout(DOCTOR_TIMEOUT_S):
                while process.poll() is None:  # noqa: ASYNC110
                    await asyncio.sleep(DOCTOR_POLL_S)
        except TimeoutError:
            raise ExecutionError(f"The machine could not be looked at within {DOCTOR_TIMEOUT_S:g} s.") from None
        finally:
            # Also when the terminal is left meanwhile: nothing is awaited here, so that it is ended in any case.
            _end(process)
        return _findings(process.returncode, _read(out), _read(said))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        # A process that a driver holds ends when that lets go of it.
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(DOCTOR_BYTES_MAX)


def _findings(status: int, out: bytes, said: bytes) -> list[Finding]:
    try:
        if status == 0:
            return msgspec.json.decode(out, type=list[Finding])
        why = said.decode(errors="replace").strip()[-SAID_MAX:]
    except msgspec.DecodeError as error:
        why = str(error)
    raise ExecutionError("The machine could not be looked at.", why=why)
