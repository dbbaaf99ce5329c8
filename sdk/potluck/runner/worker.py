"""A worker: forked from the zygote, runs inputs one after the other until its socket closes."""

from __future__ import annotations

import _thread
import resource
import types
from _pickle import loads

from .codec import Message, read_message
from .failures import Refusal, exception_message, missing_module
from .output import Output
from .results import dump_result
from .service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .function import Function


def run(socket: int, function: Function) -> None:
    """Serve the node on `socket`; returns when no more inputs come."""
    output = Output(socket)
    _get_ready(output, function)
    while True:
        match read_message(socket):
            case ["RunInput", int(number), bytes(payload), *_]:
                _run_input(output, function, number, payload)
            case ["StopWorker", *_]:
                _leave(output, function)
                output.flush()
                return
            case None:
                output.flush()
                return
            case message:
                raise ValueError(f"unexpected message {message!r:.100}")


def _get_ready(output: Output, function: Function) -> None:
    """Enter, then be ready: in time, so that it is the timeout of an input which ends a worker that enters forever."""
    said = _thread.allocate_lock()
    if isinstance(function, Service):
        output.hold()
        entered = _thread.allocate_lock()
        entered.acquire()
        _thread.start_new_thread(_ready_in_time, (output, entered, said, function.timeout_s))
        function.try_enter()
        entered.release()
    if said.acquire(blocking=False):
        output.send(["WorkerReady"])


def _ready_in_time(output: Output, entered: _thread.LockType, said: _thread.LockType, timeout_s: float) -> None:
    if not entered.acquire(timeout=timeout_s) and said.acquire(blocking=False):
        output.send(["WorkerReady"])


def _leave(output: Output, function: Function) -> None:
    output.release()
    if isinstance(function, Service):
        function.leave()


def _run_input(output: Output, function: Function, number: int, payload: bytes) -> None:
    output.input = number
    output.release()
    started_us = _cpu_us()
    tag, outcome = _outcome(function, payload)
    output.flush()
    output.input = 0
    output.send([tag, number, outcome, _cpu_us() - started_us])


def _outcome(function: Function, payload: bytes) -> tuple[str, bytes | Message]:
    """The outcome's class name and its second field. Nothing that user code raises ends the worker."""
    try:
        args, kwargs = _arguments(payload)
        return "InputSucceeded", dump_result(_call(function, args, kwargs))
    except Refusal as refusal:
        return "InputRefused", refusal.message
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are outcomes too
        return "InputRaised", exception_message(error)


def _arguments(payload: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        args, kwargs = loads(payload)
    except ImportError as error:
        raise missing_module(error, "An argument") from error
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        raise Refusal("serialization", "The arguments could not be unpickled in the image.", why=why) from error
    return args, kwargs


def _call(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    result = function(*args, **kwargs)
    if isinstance(result, types.CoroutineType):
        import asyncio

        return asyncio.run(result)
    if isinstance(result, types.GeneratorType | types.AsyncGeneratorType):
        raise Refusal(
            "invalid",
            "The function returned a generator, which cannot be sent.",
            fix="Return a list, or call the function once per item with .map.",
        )
    return result


def _cpu_us() -> int:
    """Processor time of this process, its threads and its finished children, in microseconds."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return int(sum(usage.ru_utime + usage.ru_stime for usage in usages) * 1e6)
