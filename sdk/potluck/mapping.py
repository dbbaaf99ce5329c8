"""`.map` and its kin: inputs out as the node takes them, outcomes in as they come, put in order if wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from potluck import outcomes
from potluck.session import Call
from potluck.verify import prepared
from potluck.wire.control import CallOutcome

if TYPE_CHECKING:
    from potluck.functions import Function
    from potluck.options import Most


class _Order:
    """Releases outcomes in the order of their inputs, or as they come."""

    def __init__(self, ordered: bool) -> None:
        self._ordered, self._next = ordered, 0
        self._held: dict[int, CallOutcome] = {}

    def put(self, outcome: CallOutcome) -> Iterator[CallOutcome]:
        if not self._ordered:
            yield outcome
            return
        self._held[outcome.index] = outcome
        while self._next in self._held:
            yield self._held.pop(self._next)
            self._next += 1

    @property
    def held(self) -> int:
        return len(self._held)


def _value(outcome: CallOutcome, keep_errors: bool) -> Any:
    if outcome.payload is None and keep_errors:
        return outcomes.error(outcome)
    return outcomes.value(outcome)


# Outcomes held back for one slow input, before the map waits for it: bounds memory however long the map is.
HELD_MAX = 4096


def _may_send(call: Call, order: _Order) -> bool:
    return call.room and order.held < HELD_MAX and not call.inputs_ended


def run(
    function: Function[Any, Any],
    inputs: Iterator[bytes],
    *,
    ordered: bool,
    keep_errors: bool,
    most: Most = (None, None),
) -> Iterator[Any]:
    """Yield results. Inputs are read from their iterator only as far as the mesh takes them."""
    running = function._app._require_run(function.name)
    client, order = running.client, _Order(ordered)
    call = client.open_call(running.spec(function), running.limit(function, most), prepared(function))
    try:
        while not call.finished:
            outcome = client.take_nowait(call)
            if outcome is None and _may_send(call, order):
                payload = next(inputs, None)
                if payload is None:
                    client.end_inputs(call)
                else:
                    client.add_input(call, payload)
                continue
            for each in order.put(outcome or client.take(call)):
                yield _value(each, keep_errors)
    finally:
        client.close_call(call, "the caller left")


async def run_async(
    function: Function[Any, Any],
    inputs: Iterator[bytes],
    *,
    ordered: bool,
    keep_errors: bool,
    most: Most = (None, None),
) -> AsyncIterator[Any]:
    """As `run`, for asyncio."""
    running = function._app._require_run(function.name)
    client, order = await running.async_client(), _Order(ordered)
    call = client.open_call(await running.spec_async(function), running.limit(function, most), prepared(function))
    try:
        while not call.finished:
            outcome = client.take_nowait(call)
            if outcome is None and _may_send(call, order):
                payload = next(inputs, None)
                if payload is None:
                    await client.end_inputs(call)
                else:
                    await client.add_input(call, payload)
                continue
            for each in order.put(outcome or await client.take(call)):
                yield _value(each, keep_errors)
    finally:
        client.close_call(call, "the caller left")
