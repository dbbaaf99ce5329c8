"""From a decorated function to what a provider needs to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from potluck.source import Reference
from potluck.wire import FunctionSpec, Resources, RetryPolicy

if TYPE_CHECKING:
    from potluck.functions import Function
    from potluck.retries import Retries

# What a function gets that asks for nothing: one core, and memory for a worker with numpy and some data.
DEFAULT_CPU_MILLI, DEFAULT_MEMORY_MIB = 1000, 512


def make_spec(function: Function[Any, Any], reference: Reference, image: str, python: str) -> FunctionSpec:
    """The function on the wire, once its image (by id) is built."""
    options = function._options
    cpu_milli = DEFAULT_CPU_MILLI if options.cpu is None else round(options.cpu * 1000)
    return FunctionSpec(
        app=function.app.name,
        name=function._pool,
        image=image,
        python=python,
        module=reference.module,
        qualname=reference.qualname,
        pickled=reference.pickled,
        resources=Resources(options.gpu, cpu_milli, options.memory or DEFAULT_MEMORY_MIB),
        timeout_us=round(options.timeout * 1e6),
        retries=_policy(options.retries),
        env=options.env,
        tier=options.sandbox,
        network=options.network,
        parameters=function._parameters,
    )


def _policy(retries: Retries) -> RetryPolicy:
    return RetryPolicy(
        retries.max_retries,
        round(retries.initial_delay * 1e6),
        round(retries.backoff_coefficient * 1000),
        round(retries.max_delay * 1e6),
    )
