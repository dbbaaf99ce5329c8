"""How inputs end: the words that their caller reads. Pure."""

from __future__ import annotations

from potluck.errors import Error, ExecutionError, FunctionTimeoutError, ResourceExceededError
from potluck.wire import Failure, FunctionSpec
from potluck.wire.lease import InputDone
from potluck.wire.worker import InputRaised, InputRefused, InputSucceeded
from potluck_node.core.pools import Item


def as_done(item: Item, outcome: InputSucceeded | InputRaised | InputRefused) -> InputDone:
    """A worker's answer as the caller gets it."""
    message, run_us = item.message, item.run_us
    if isinstance(outcome, InputSucceeded):
        return InputDone(message.input, message.attempt, run_us, payload=outcome.payload)
    if isinstance(outcome, InputRaised):
        return InputDone(message.input, message.attempt, run_us, exception=outcome.exception)
    return InputDone(message.input, message.attempt, run_us, failure=outcome.failure)


def failed(item: Item, failure: Failure) -> InputDone:
    """It failed for good; `retries` may still apply."""
    return InputDone(item.message.input, item.message.attempt, item.run_us, failure=failure)


def lost(item: Item, why: str, yielded: bool = False) -> InputDone:
    """It may run elsewhere; `yielded` if its owner wants the machine."""
    return InputDone(item.message.input, item.message.attempt, item.run_us, lost=why, yielded=yielded)


def died(item: Item, reason: str, alone: bool) -> InputDone:
    """Its worker died. Where several ran in there, nobody knows whose fault it was: all may run elsewhere."""
    if not alone:
        return lost(item, f"its worker died: {reason}")
    if "out of memory" in reason:
        error: Error = ResourceExceededError(
            "The worker ran out of memory.", why=reason, fix="Ask for more: @app.function(memory=…) in MiB."
        )
    else:
        error = ExecutionError("The worker died while it ran the function.", why=reason)
    return failed(item, Failure.of(error))


def timed_out(spec: FunctionSpec) -> Failure:
    """It ran longer than it may."""
    error = FunctionTimeoutError(
        f"{spec.name} ran longer than its timeout of {spec.timeout_us / 1e6:g} s.",
        fix="Raise it with @app.function(timeout=…) in seconds, or split the work.",
    )
    return Failure.of(error)


def beyond_share(spec: FunctionSpec, used_mib: int) -> Failure:
    """Why a worker that took more of a shared GPU than it asked for was ended."""
    asked = " or ".join(spec.resources.gpu)
    error = ResourceExceededError(
        f"The worker took {used_mib} MiB of a GPU of which {spec.name} asked for a part.",
        why=f"it asked for {asked}; others share that GPU",
        fix='Ask for more, or for a whole GPU: gpu="any:>=…GB".',
    )
    return Failure.of(error)
