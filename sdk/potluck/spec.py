"""From a decorated function to what a provider needs to know of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from potluck.mounts import mounted
from potluck.options import LIMITS, limited
from potluck.secret import joined, values
from potluck.source import Reference
from potluck.wire import FunctionSpec, Resources, RetryPolicy
from potluck.wire.common import Limit, Scaling, Sharing, Web

if TYPE_CHECKING:
    from potluck.functions import Function
    from potluck.options import Options
    from potluck.retries import Retries
    from potluck.web import Web as Asked

# What a function gets that asks for nothing: one core, and memory for a worker with numpy and some data.
DEFAULT_CPU_MILLI, DEFAULT_MEMORY_MIB = 1000, 512

# Enough that no two are equal by chance.
SALT_BYTES = 16

# Under which setting each field of `Scaling` is given.
_SCALING = {
    "min_containers": "min_containers",
    "max_containers": "max_containers",
    "buffer_containers": "buffer_containers",
    "scaledown_window": "scaledown_us",
}


def make_spec(function: Function[Any, Any], reference: Reference, image: str, python: str, key: bytes) -> FunctionSpec:
    """The function on the wire, once its image (by id) is built. The `key` of this run makes of secrets a salt that
    tells nothing of them, so that no worker that has other values serves it."""
    plain = FunctionSpec(
        app=function.app.name,
        name=function._pool,
        image=image,
        python=python,
        module=reference.module,
        qualname=reference.qualname,
        pickled=reference.pickled,
        resources=Resources(cpu_milli=DEFAULT_CPU_MILLI, memory_mib=DEFAULT_MEMORY_MIB),
        parameters=function._parameters,
        generator=function._pool_yields,
        web=_web(function._web),
    )
    return changed(plain, function._options, key)


def _named_limit(spec: FunctionSpec, options: Options, key: bytes) -> Limit | None:
    """One for all calls of a function, in this run."""
    most = options.max_gpu_seconds, options.max_cost
    of = msgspec.msgpack.encode((spec.app, spec.name, most))
    return limited(most, hashlib.blake2b(of, key=key, digest_size=SALT_BYTES).hexdigest())


def _web(web: Asked | None) -> Web | None:
    if web is None:
        return None
    startup_us = round(web.startup_timeout * 1e6)
    return Web(web.kind, web.label, web.method, web.docs, web.private, web.port, startup_us, web.attribute)


def changed(spec: FunctionSpec, options: Options, key: bytes) -> FunctionSpec:
    """With what `options` were given, and all else as it was. Raises `InvalidError` for secrets that are not there."""
    found = {
        "resources": _resources(spec.resources, options),
        "scaling": scaled(spec.scaling, options.scaling, options.single_use),
        "timeout_us": round(options.timeout * 1e6),
        "startup_timeout_us": round((options.startup_timeout or 0) * 1e6),
        "retries": _policy(options.retries),
        "env": options.env,
        "tier": options.sandbox,
        "network": options.network,
        "region": options.region,
        "labels": options.labels,
        "snapshot": options.snapshot,
        "volumes": mounted(options.volumes),
        "limit": _named_limit(spec, options, key),
    }
    kept = {field: value for field, value in found.items() if _SETTINGS.get(field, {field}) & options.given.keys()}
    if options.secrets:
        secrets = values(joined(options.secrets))
        kept |= {"secrets": secrets, "salt": _salt(secrets, key)}
    if any(options.sharing[1:]) or options.sharing.max_inputs > 1:
        most, target, batch, wait_ms = options.sharing
        kept["sharing"] = Sharing(most, target, batch, wait_ms * 1000)
    return replace(spec, **kept)


# Which settings make a field, where it is not the one of its name.
_SETTINGS = {
    "resources": {"gpu", "cpu", "memory", "ephemeral_disk"},
    "scaling": {*_SCALING, "single_use_containers"},
    "timeout_us": {"timeout"},
    "startup_timeout_us": {"startup_timeout"},
    "tier": {"sandbox"},
    "network": {"block_network", "outbound_domain_allowlist"},
    "snapshot": {"enable_memory_snapshot"},
    "limit": set(LIMITS),
}


def scaled(scaling: Scaling, given: dict[str, int], single_use: bool = False) -> Scaling:
    """With some numbers replaced; `scaledown_window` is in seconds."""
    fields = {_SCALING[name]: value for name, value in given.items()}
    if "scaledown_us" in fields:
        fields["scaledown_us"] *= 1_000_000
    return replace(scaling, single_use=single_use or scaling.single_use, **fields)


def _salt(secrets: tuple[tuple[str, str], ...], key: bytes) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(secrets), key=key, digest_size=SALT_BYTES).digest()


def _resources(before: Resources, options: Options) -> Resources:
    return Resources(
        options.gpu or before.gpu,
        before.cpu_milli if options.cpu is None else round(options.cpu * 1000),
        before.memory_mib if options.memory is None else round(options.memory),
        before.scratch_mib if options.ephemeral_disk is None else round(options.ephemeral_disk),
    )


def _policy(retries: Retries) -> RetryPolicy:
    return RetryPolicy(
        retries.max_retries,
        round(retries.initial_delay * 1e6),
        round(retries.backoff_coefficient * 1000),
        round(retries.max_delay * 1e6),
    )
