"""Inputs side by side, batches and generators in a worker, without a sandbox around it."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle
import pytest
from tests.sdk.runner.test_runner import PYTHON, Channel, spawn, zygote

from potluck.wire import Sharing
from potluck.wire.common import FunctionSpec
from potluck.wire.worker import (
    ITEMS_AHEAD_MAX,
    InputRaised,
    InputRefused,
    InputSucceeded,
    InputYielded,
    InterruptWorker,
    ItemsTaken,
    RunBatch,
    RunInput,
    StopInput,
    WorkerExited,
    WorkerLog,
    ZygoteReady,
)


@contextmanager
def worker(function: Callable[..., Any], **fields: Any) -> Iterator[Channel]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    spec = FunctionSpec("app", "f", "", PYTHON, pickled=cloudpickle.dumps(function), **fields)
    with zygote(spec) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        yield channel
        channel.socket.close()


def payload(*args: Any, **kwargs: Any) -> bytes:
    return pickle.dumps((args, kwargs))


def outcomes(channel: Channel, count: int) -> dict[int, Any]:
    """By input; results unpickled."""
    found: dict[int, Any] = {}
    while len(found) < count:
        message = channel.receive()
        assert not isinstance(message, WorkerLog), message
        if isinstance(message, InputSucceeded):
            found[message.input] = pickle.loads(message.payload) if message.payload else None
        else:
            found[message.input] = message
    return found


def meet(number: int, together: list[int] = []) -> list[int]:  # noqa: B006 - shared by the inputs of a worker
    """Returns once three inputs are here at once."""
    together.append(number)
    while len(together) < 3:
        time.sleep(0.001)
    return sorted(together)


async def meet_async(number: int, together: list[int] = []) -> list[int]:  # noqa: B006 - as above
    together.append(number)
    while len(together) < 3:
        await asyncio.sleep(0.001)
    return sorted(together)


@pytest.mark.parametrize("function", [meet, meet_async])
def test_inputs_run_side_by_side(function: Callable[..., Any]) -> None:
    with worker(function, sharing=Sharing(max_inputs=3)) as channel:
        for number in (1, 2, 3):
            channel.send(RunInput(number, payload(number)))
        assert outcomes(channel, 3) == {number: [1, 2, 3] for number in (1, 2, 3)}


def test_async_inputs_share_one_thread_and_one_loop() -> None:
    async def where() -> tuple[int, int]:
        await asyncio.sleep(0.01)
        return threading.get_ident(), id(asyncio.get_running_loop())

    with worker(where, sharing=Sharing(max_inputs=100)) as channel:
        for number in range(1, 101):
            channel.send(RunInput(number, payload()))
        assert len(set(outcomes(channel, 100).values())) == 1


def test_what_one_raises_is_its_own_affair() -> None:
    def fail(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with worker(fail, sharing=Sharing(max_inputs=3)) as channel:
        for number in (1, 2, 3):
            channel.send(RunInput(number, payload(number)))
        found = outcomes(channel, 3)
    assert (found[1], found[3]) == (1, 3)
    assert isinstance(found[2], InputRaised)
    assert found[2].exception.message == "two"


def sleepy() -> str:
    for _ in range(1000):
        time.sleep(0.01)
    return "slept"


async def sleepy_async() -> str:
    await asyncio.sleep(10)
    return "slept"


@pytest.mark.parametrize("function", [sleepy, sleepy_async])
def test_one_input_is_stopped_and_the_worker_goes_on(function: Callable[..., Any]) -> None:
    with worker(function, sharing=Sharing(max_inputs=2)) as channel:
        channel.send(RunInput(1, payload()))
        channel.send(RunInput(2, payload()))
        channel.send(StopInput(1))
        # A thread or task that has not begun yet is not stopped; again until it is.
        channel.socket.settimeout(0.2)
        while True:
            try:
                (found,) = outcomes(channel, 1).items()
                break
            except TimeoutError:
                channel.send(StopInput(1))
        assert found[0] == 1
        assert isinstance(found[1], InputRaised)


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("function", [sleepy, sleepy_async])
def test_all_inputs_are_ended_shortly_before_the_owner_has_the_machine(function: Callable[..., Any], runs: int) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    spec = FunctionSpec("app", "f", "", PYTHON, pickled=cloudpickle.dumps(function), sharing=Sharing(max_inputs=runs))
    with zygote(spec) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        for number in range(1, runs + 1):
            channel.send(RunInput(number, payload()))
        channel.socket.settimeout(0.2)
        found: dict[int, Any] = {}
        while len(found) < runs:
            # One that has not begun yet is not ended; again until it is.
            parent.send(InterruptWorker("w", last=True))
            try:
                found |= outcomes(channel, 1)
            except TimeoutError:
                continue
        channel.socket.close()
    assert found.keys() == set(range(1, runs + 1))
    kinds = {each.exception.type_name.rpartition(".")[2] for each in found.values()}
    assert kinds <= {"KeyboardInterrupt", "InputCancelled", "CancelledError"}


def double(number: int, plus: int = 0) -> list[int]:
    return [2 * each + more for each, more in zip(number, plus, strict=True)]  # type: ignore[call-overload]


async def double_async(number: int, plus: int = 0) -> list[int]:
    await asyncio.sleep(0)
    return double(number, plus)


@pytest.mark.parametrize("function", [double, double_async])
@pytest.mark.parametrize("runs", [1, 2])
def test_a_batch_is_one_call_with_lists(function: Callable[..., Any], runs: int) -> None:
    with worker(function, sharing=Sharing(max_inputs=runs, batch_size=4)) as channel:
        channel.send(RunBatch((1, 2, 3), (payload(1), payload(number=2), payload(3, plus=1))))
        assert outcomes(channel, 3) == {1: 2, 2: 4, 3: 7}


@pytest.mark.parametrize(
    ("result", "text"), [([1], "a list of 1"), (5, "returned a int"), ("ab", "returned a str"), (None, "NoneType")]
)
def test_a_batch_must_return_one_result_for_each_input(result: object, text: str) -> None:
    with worker(lambda number: result, sharing=Sharing(batch_size=2)) as channel:
        channel.send(RunBatch((1, 2), (payload(1), payload(2))))
        found = outcomes(channel, 2)
    assert all(isinstance(each, InputRefused) for each in found.values())
    assert text in f"{found[1].failure.what} {found[1].failure.why}"


def test_what_a_batch_raises_is_the_outcome_of_each_and_a_broken_input_only_its_own() -> None:
    def fail(number: int) -> list[int]:
        raise ValueError(f"all {len(number)}")  # type: ignore[arg-type]

    with worker(fail, sharing=Sharing(batch_size=3)) as channel:
        channel.send(RunBatch((1, 2, 3), (payload(1), b"no pickle", payload(3))))
        found = outcomes(channel, 3)
    assert [found[number].exception.message for number in (1, 3)] == ["all 2", "all 2"]
    assert found[2].failure.kind == "serialization"


def test_arguments_that_do_not_fit_are_told() -> None:
    with worker(double, sharing=Sharing(batch_size=2)) as channel:
        channel.send(RunBatch((1, 2), (payload(1), payload(2, 3, 4))))
        found = outcomes(channel, 2)
    assert "takes the arguments number, plus" in found[1].exception.message


def count(end: int) -> Iterator[int]:
    yield from range(end)


async def count_async(end: int) -> AsyncIterator[int]:
    for number in range(end):
        yield number


@pytest.mark.parametrize("function", [count, count_async])
@pytest.mark.parametrize("runs", [1, 2])
def test_a_generator_waits_for_whoever_takes_its_items(function: Callable[..., Any], runs: int) -> None:
    with worker(function, generator=True, sharing=Sharing(max_inputs=runs)) as channel:
        channel.send(RunInput(1, payload(2 * ITEMS_AHEAD_MAX)))
        seen = [channel.receive() for _ in range(ITEMS_AHEAD_MAX)]
        channel.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            channel.receive()
        channel.socket.settimeout(20)
        channel.send(ItemsTaken(1, ITEMS_AHEAD_MAX))
        seen += [channel.receive() for _ in range(ITEMS_AHEAD_MAX)]
        assert [pickle.loads(each.payload) for each in seen] == list(range(2 * ITEMS_AHEAD_MAX))
        assert [each.item for each in seen] == list(range(2 * ITEMS_AHEAD_MAX))
        last = channel.receive()
        assert isinstance(last, InputSucceeded)
        assert last.payload == b""


def test_a_generator_that_nobody_listens_to_ends_with_its_worker() -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    spec = FunctionSpec("app", "f", "", PYTHON, pickled=cloudpickle.dumps(count), generator=True)
    with zygote(spec) as parent:
        assert isinstance(parent.receive(), ZygoteReady)
        channel, _ = spawn(parent, "w")
        channel.send(RunInput(1, payload(1 << 30)))
        assert isinstance(channel.receive(), InputYielded)
        channel.socket.shutdown(socket.SHUT_RDWR)
        channel.socket.close()
        assert isinstance(parent.receive(), WorkerExited)


def test_a_generator_where_none_was_announced_is_refused() -> None:
    with worker(count, generator=False) as channel:
        channel.send(RunInput(1, payload(3)))
        assert "remote_gen" in outcomes(channel, 1)[1].failure.fix
