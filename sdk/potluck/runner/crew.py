"""Inputs side by side in one worker: plain functions in threads, `async def` ones on one event loop.

The main thread reads what the node sends. While the node does not take what is printed or yielded, all wait.
"""

from __future__ import annotations

import _thread
import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    from .jobs import Job


class InputCancelled(BaseException):
    """Raised in a thread whose input nobody waits for any more."""


class Loop:
    """An event loop in a thread of its own, made when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = _thread.allocate_lock()

    def finish(self, coroutine: Coroutine[Any, Any, Any]) -> object:
        """Run it there and wait, in another thread."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(coroutine, self.get()).result()

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
                _thread.start_new_thread(_run, (self._loop,))
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    asyncio.set_event_loop(loop)
    loop.run_forever()


class Crew:
    """`tell` takes each job that has its outcomes, from any thread; `rouse` lets a thread that waits look up."""

    def __init__(self, loop: Loop, tell: Callable[[Job], None], rouse: Callable[[int], None]) -> None:
        self._loop, self._tell, self._rouse = loop, tell, rouse
        self._threads: dict[int, int] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._lock = _thread.allocate_lock()

    def start(self, job: Job) -> None:
        """Begin it; returns at once."""
        if job.is_async:
            self._start_async(job)
        else:
            _thread.start_new_thread(self._work, (job,))

    def stop(self, number: int) -> None:
        """End an input, as far as that can be done from outside: a coroutine at its next await, a thread at its next
        line of Python."""
        with self._lock:
            thread, task = self._threads.get(number), self._tasks.get(number)
        if task is not None:
            self._loop.get().call_soon_threadsafe(task.cancel)
        elif thread is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(InputCancelled))
            self._rouse(thread)

    def stop_all(self) -> None:
        """The same for every input."""
        # Without the lock, which the thread may hold that a signal interrupts.
        for number in [*self._threads, *self._tasks]:
            _thread.start_new_thread(self.stop, (number,))

    def _work(self, job: Job) -> None:
        with self._lock:
            self._threads |= dict.fromkeys(job.numbers, _thread.get_ident())
        try:
            job.run(self._loop.finish)
        finally:
            with self._lock:
                for number in job.numbers:
                    self._threads.pop(number, None)
        self._tell(job)

    def _start_async(self, job: Job) -> None:
        loop = self._loop.get()
        try:
            result = job.begin()
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is an outcome
            job.fail(error)
            self._tell(job)
            return
        loop.call_soon_threadsafe(self._on_loop, loop, job, result)

    def _on_loop(self, loop: asyncio.AbstractEventLoop, job: Job, result: object) -> None:
        task = loop.create_task(job.run_async(result))
        with self._lock:
            self._tasks |= dict.fromkeys(job.numbers, task)
        task.add_done_callback(lambda _: self._done(job))

    def _done(self, job: Job) -> None:
        with self._lock:
            for number in job.numbers:
                self._tasks.pop(number, None)
        self._tell(job)
