"""A worker: forked from the zygote, runs inputs, one after the other or side by side, until its socket closes."""

from __future__ import annotations

import _thread
import os
import resource
import time

from . import asking, current, notice
from .crew import Crew, Loop
from .failures import late
from .inbox import Inbox
from .jobs import PAUSE_S, Batch, One
from .output import Output
from .service import Service, run_apart
from .window import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .function import Function
    from .jobs import Job


def run(socket: int, function: Function, spec: dict[str, Any]) -> None:
    """Serve the node on `socket`; returns when no more inputs come. `spec` has the fields of a `FunctionSpec`."""
    if spec["web"]:
        # Few functions answer requests, and all wait for imports.
        from . import web

        web.serve(socket, function, spec)
        return
    Worker(socket, function, spec).serve()


class Worker:
    def __init__(self, socket: int, function: Function, spec: dict[str, Any]) -> None:
        self._socket, self._function, self._yields = socket, function, bool(spec["generator"])
        self._output = Output(socket)
        self._cpu_us, self._cpu_lock = 0, _thread.allocate_lock()
        self._over = False
        self._asking = asking.current = asking.Asking(self._output)
        self._inbox = Inbox(socket, self._asking.told)
        self._asking.listen = self._inbox.listen
        runs, *_ = spec["sharing"]
        self._crew: Crew | None = None
        self._windows = Windows(self._read)
        if runs > 1:
            loop = Loop()
            self._crew = Crew(loop, self._tell, self._asking.rouse)
            self._windows = Windows(self._pause)
            if isinstance(function, Service):
                function.finish = loop.finish

    def serve(self) -> None:
        """Returns when the node says so, or closes the socket."""
        notice.listen(self._crew.stop_all if self._crew else lambda: None)
        _get_ready(self._output, self._function)
        while not self._over:
            self._read()
        self._output.flush()

    def _read(self) -> None:
        """Take one message, also while a generator that runs in this thread waits."""
        message: Any = self._inbox.get()
        match message:
            case ["RunInput", int(number), payload, bool(as_data), str(call), int(index), *_]:
                self._asking.as_data = bool(as_data)
                full = self._windows.full if self._crew else None
                job = One(self._function, number, payload, self._yields, self._emit, full, as_data)
                job.place = (number, call, index)
                self._run(job)
            case ["RunBatch", list(numbers), list(payloads), bool(as_data), *_]:
                self._asking.as_data = bool(as_data)
                self._run(Batch(self._function, numbers, payloads, as_data))
            case ["ItemsTaken", int(number), int(items), *_]:
                self._windows.taken(number, items)
            case ["StopInput", int(number), *_]:
                if self._crew:
                    self._crew.stop(number)
            case ["StopWorker", *_]:
                _leave(self._output, self._function)
                self._over = True
            case None:
                self._output.flush()
                os._exit(0)  # also out of a generator that nobody listens to
            case message:
                raise ValueError(f"unexpected message {message!r:.100}")

    def _run(self, job: Job) -> None:
        if self._crew:
            self._output.release()
            self._crew.start(job)
            return
        self._output.input = job.numbers[0]
        current.alone = job.place
        self._output.release()
        self._cpu_us = _cpu_us()
        notice.running = True
        try:
            job.run(self._function.finish if isinstance(self._function, Service) else run_apart)
        finally:
            notice.running = False
        self._output.flush()
        self._output.input = 0
        current.alone = current.NOTHING
        current.running.set(current.NOTHING)
        self._tell(job, flush=False)

    def _tell(self, job: Job, flush: bool = True) -> None:
        with self._cpu_lock:
            now_us = _cpu_us()
            spent_us, self._cpu_us = now_us - self._cpu_us, now_us
        for number, (tag, outcome) in job.outcomes.items():
            self._windows.end(number)
            self._output.send([tag, number, outcome, spent_us // len(job.outcomes)], flush)

    def _emit(self, number: int, item: int, payload: bytes) -> None:
        self._windows.send(number, len(payload))
        self._output.send(["InputYielded", number, item, payload])

    @staticmethod
    def _pause() -> None:
        time.sleep(PAUSE_S)


def _get_ready(output: Output, function: Function) -> None:
    """Enter, then be ready: in time, so that it is the timeout of an input which ends a worker that enters forever."""
    said, trouble = _thread.allocate_lock(), ""
    if isinstance(function, Service):
        output.hold()
        entered = _thread.allocate_lock()
        entered.acquire()
        _thread.start_new_thread(_ready_in_time, (output, entered, said, function.timeout_s))
        trouble = function.try_enter()
        entered.release()
    if said.acquire(blocking=False):
        output.send(["WorkerReady", trouble])


def _ready_in_time(output: Output, entered: _thread.LockType, said: _thread.LockType, timeout_s: float) -> None:
    if not entered.acquire(timeout=timeout_s) and said.acquire(blocking=False):
        output.send(["WorkerReady", late(timeout_s)])


def _leave(output: Output, function: Function) -> None:
    output.release()
    if isinstance(function, Service):
        function.leave()


def _cpu_us() -> int:
    """Processor time of this process, its threads and its finished children, in microseconds."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return int(sum(usage.ru_utime + usage.ru_stime for usage in usages) * 1e6)
