"""`.remote_gen`: items of a generator as they come. Whoever stops taking them early ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from potluck import outcomes
from potluck.serialize import loads
from potluck.wire.control import CallOutcome

if TYPE_CHECKING:
    from potluck.functions import Function


def run(function: Function[Any, Any], payload: bytes) -> Iterator[Any]:
    """Yield the items; raises the generator's exception, or what kept it from running."""
    running = function._app._require_run(function.name)
    client = running.client
    call = client.open_call(running.spec(function), running.limit(function))
    try:
        client.add_input(call, payload, last=True)
        while not isinstance(found := client.take_item(call), CallOutcome):
            yield loads(found)
        _check_end(found)
    finally:
        client.close_call(call, "the caller left")


async def run_async(function: Function[Any, Any], payload: bytes) -> AsyncIterator[Any]:
    """As `run`, for asyncio."""
    running = function._app._require_run(function.name)
    client = await running.async_client()
    call = client.open_call(await running.spec_async(function), running.limit(function))
    try:
        await client.add_input(call, payload, last=True)
        while not isinstance(found := await client.take_item(call), CallOutcome):
            yield loads(found)
        _check_end(found)
    finally:
        client.close_call(call, "the caller left")


def _check_end(outcome: CallOutcome) -> None:
    """Its payload says nothing, since the items were all."""
    if outcome.payload is None:
        raise outcomes.error(outcome)
