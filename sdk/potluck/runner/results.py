"""Pickles results. Plain pickle first: cloudpickle takes 30 ms to import, and few results need it."""

from __future__ import annotations

import _pickle

from .codec import PAYLOAD_BYTES_MAX, Parts
from .failures import Refusal
from .memory import INLINE_BYTES_MAX
from .pickles import dump, load
from .unpicklable import FIX, WHY, unpicklable_path

__all__ = ["dump_result", "dumps", "loads"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .pickles import Buffer

loads = load


def dumps(value: object) -> bytes:
    """Pickle with protocol 5; what plain pickle refuses (lambdas, classes of a notebook) goes through cloudpickle."""
    return b"".join(_parts(value))


def _parts(value: object) -> list[Buffer]:
    try:
        return dump(_pickle.dumps, value)
    except Exception:  # noqa: BLE001 - pickling runs foreign code, which raises what it likes
        import cloudpickle

        return dump(cloudpickle.dumps, value)


def dump_result(value: object) -> bytes:
    """What is large is `Parts` instead. Raises `Refusal` that names the part which cannot be sent."""
    try:
        found = _parts(value)
    except Exception:  # noqa: BLE001 - as above
        path, why = unpicklable_path(value, "result")
        raise Refusal("serialization", f"{path}: {why}", WHY, FIX) from None
    return as_payload(found)


def as_payload(buffers: list[Buffer]) -> bytes:
    """As `dump_result`, of what is already dumped."""
    parts = Parts(buffers)
    if parts.size > PAYLOAD_BYTES_MAX:
        raise Refusal(
            "serialization",
            f"The result has {parts.size >> 20} MiB; at most {PAYLOAD_BYTES_MAX >> 20} MiB can be returned.",
            fix="Write large results to a volume and return the path, or return them in parts with .map.",
        )
    large: Any = parts
    return large if parts.size > INLINE_BYTES_MAX else b"".join(parts.buffers)
