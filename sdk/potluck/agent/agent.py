"""The agent: runs a sandbox's own command, and does what comes as errands, until the sandbox is to end."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from typing import Any

from potluck import wire
from potluck.agent import files
from potluck.agent.processes import KILLED, TIMED_OUT, Process, until
from potluck.agent.snapshots import snapshot
from potluck.asking import drive
from potluck.errors import Error, InvalidError, NotFoundError, RefusedError
from potluck.tunnels import Carrier
from potluck.wire import sandbox as messages
from potluck.wire.errands import Attend, Begin, Errand, Report

# Errands that are done at once, each in a thread: commands that are waited for, and streams that are read.
THREADS_MAX = 200
# A port that does not answer in this time is not ready, seconds.
PROBE_TIMEOUT_S = 1.0


def serve(packed: bytes) -> bytes:
    """Run a sandbox; `packed` is a `wire.sandbox.Setup`, what is returned a `Result`. Raises `RefusedError` when it ran
    before, elsewhere."""
    return wire.encode(Agent(wire.decode(packed, messages.Setup)).run())


class Agent:
    def __init__(self, setup: messages.Setup) -> None:
        self._setup = setup
        self._processes: dict[int, Process] = {}
        self._numbers = messages.MAIN
        self._lock, self._places = threading.Lock(), threading.Semaphore(THREADS_MAX)
        self._ending, self._reason = threading.Event(), "exit"
        self._ports: tuple[tuple[int, str, int], ...] | Error = ()
        self._carriers: list[Carrier] = []
        self._ported, self._ready = threading.Event(), threading.Event()
        self._active_at, self._carried = time.monotonic(), 0

    def run(self) -> messages.Result:
        """Until the command, or the time, is over, or it is told to end."""
        setup = self._setup
        deadline = time.monotonic() + setup.timeout_us / 1e6
        _ask(Begin(setup.token))
        if setup.args:
            self._start(messages.Exec(setup.args, workdir=setup.workdir, pty=setup.pty), messages.MAIN)
        for task in (self._attend, self._open_ports, self._probe):
            threading.Thread(target=task, daemon=True).start()
        self._last_until(deadline)
        for process in list(self._processes.values()):
            process.kill()
        for carrier in self._carriers:
            carrier.end()
        return self._result()

    def _last_until(self, deadline: float) -> None:
        """Looks up each second, only where somebody wants it to end when nothing happens."""
        idle_s = self._setup.idle_us / 1e6
        while not self._ending.wait(min(until(deadline), 1.0) if idle_s else until(deadline)):
            if not until(deadline):
                self._end("timeout")
            elif idle_s and time.monotonic() - self._active_at > idle_s and not self._is_busy():
                self._end("idle")

    def _is_busy(self) -> bool:
        """Whether a command other than its own runs, or a port was used."""
        with self._lock:
            others = [each for number, each in self._processes.items() if number != messages.MAIN]
        carried = sum(carrier.carried for carrier in self._carriers)
        is_new, self._carried = carried != self._carried, carried
        if is_new or not all(process.has_ended for process in others):
            self._active_at = time.monotonic()
            return True
        return False

    def _end(self, reason: str) -> None:
        with self._lock:
            if not self._ending.is_set():
                self._reason = reason
                self._ending.set()

    def _result(self) -> messages.Result:
        main = self._processes.get(messages.MAIN)
        codes = {"timeout": TIMED_OUT, "terminated": KILLED, "idle": KILLED}
        ended = main.wait(0) if main else 0
        code = codes.get(self._reason, ended if ended is not None else KILLED)
        streams = [main.streams[each].last() if main else (b"", 0) for each in (messages.STDOUT, messages.STDERR)]
        return messages.Result(code, self._reason, *streams[0], *streams[1])

    # Errands

    def _attend(self) -> None:
        token = self._setup.token
        try:
            while True:
                self._places.acquire()
                errand: Errand = _ask(Attend(token))
                self._active_at = time.monotonic()
                threading.Thread(target=self._do, args=(errand,), daemon=True).start()
        except Error:
            # Whoever could ask is gone.
            self._end("terminated")

    def _do(self, errand: Errand) -> None:
        try:
            _ask(Report(self._setup.token, errand.number, wire.encode(self._answer(errand.payload))))
        except Error:
            # Nobody waits for it any more.
            return
        finally:
            self._places.release()

    def _answer(self, payload: bytes) -> messages.Answer:
        try:
            return self._answered(wire.decode(payload, messages.Request))
        except Error as error:
            return messages.Failed(wire.Failure.of(error))

    def _answered(self, request: messages.Request) -> messages.Answer:
        match request:
            case messages.Exec():
                return messages.Started(self._start(request))
            case messages.Feed(process, data, end):
                return self._feed(process, data, end)
            case messages.Take(process, stream, offset, wait_us):
                data, is_end = self._find(process).streams[stream].take(offset, _seconds(wait_us))
                return messages.Piece(data, is_end)
            case messages.Await(process, wait_us):
                return self._await(process, _seconds(wait_us))
            case messages.Terminate():
                self._end("terminated")
                return messages.Done()
            case messages.AwaitReady(wait_us):
                return messages.Ready(self._ready.wait(_seconds(wait_us)))
            case messages.AwaitPorts():
                return self._all_ports()
            case messages.Snapshot(wait_us):
                return snapshot(wait_us / 1e6)
        return files.answer(request)

    def _start(self, request: messages.Exec, number: int | None = None) -> int:
        with self._lock:
            self._make_room()
            workdir, timeout_s = request.workdir or self._setup.workdir, request.timeout_us / 1e6
            try:
                process = Process(request.args, dict(request.env), workdir, timeout_s, request.pty)
            except (OSError, ValueError) as error:
                raise _cannot_start(request.args[0], error) from None
            if number is None:
                self._numbers += 1
                number = self._numbers
            self._processes[number] = process
        if number == messages.MAIN:
            threading.Thread(target=self._watch, args=(process,), daemon=True).start()
        return number

    def _make_room(self) -> None:
        """Forget the oldest of the commands that have ended, with what they printed, where there are many."""
        if len(self._processes) < messages.PROCESSES_MAX:
            return
        over = [number for number, each in self._processes.items() if number != messages.MAIN and each.has_ended]
        if not over:
            raise RefusedError(f"{messages.PROCESSES_MAX} commands run in this sandbox.", fix="Wait for some.")
        del self._processes[over[0]]

    def _watch(self, main: Process) -> None:
        main.wait(threading.TIMEOUT_MAX)
        self._end("exit")

    def _find(self, number: int) -> Process:
        with self._lock:
            found = self._processes.get(number)
        if found is None:
            raise NotFoundError(f"There is no command {number} in this sandbox.")
        return found

    def _await(self, number: int, wait_s: float) -> messages.Ended:
        if number == messages.MAIN and not self._setup.args:
            # There is no command: what can be waited for is the sandbox's end.
            return messages.Ended(KILLED if self._ending.wait(wait_s) else None)
        found = self._find(number)
        return messages.Ended(found.wait(wait_s), found.late)

    def _feed(self, number: int, data: bytes, end: bool) -> messages.Done:
        try:
            self._find(number).feed(data, end)
        except (OSError, ValueError) as error:
            raise InvalidError("The command takes no more input.", why=str(error)) from None
        return messages.Done()

    # Ports, and whether it is ready

    def _open_ports(self) -> None:
        try:
            opened = []
            for port in self._setup.ports:
                self._carriers.append(Carrier(port))
                opened.append((port, *self._carriers[-1].begin()))
            self._ports = tuple(opened)
        except Error as error:
            self._ports = error
        self._ported.set()

    def _all_ports(self) -> messages.Ports:
        self._ported.wait(messages.WAIT_US_MAX / 1e6)
        if isinstance(self._ports, Error):
            raise self._ports
        return messages.Ports(self._ports)

    def _probe(self) -> None:
        setup = self._setup
        while not self._is_ready():
            if self._ending.wait(setup.probe_us / 1e6):
                return
        self._ready.set()

    def _is_ready(self) -> bool:
        if port := self._setup.probe_port:
            try:
                socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_S).close()
            except OSError:
                return False
        if args := self._setup.probe_args:
            try:
                return not subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
            except OSError:
                return False
        return True


def _cannot_start(command: str, error: Exception) -> Error:
    return InvalidError(
        f"{command!r:.100} cannot be run in the sandbox.",
        why=str(error),
        fix="Give the name of a program that its image has, and its arguments one by one.",
    )


def _seconds(wait_us: int) -> float:
    return min(max(0, wait_us), messages.WAIT_US_MAX) / 1e6


def _ask(request: Any) -> Any:
    def once() -> Any:
        return (yield request)

    return drive(once())
