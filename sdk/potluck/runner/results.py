"""Pickles results. Plain pickle first: cloudpickle takes 30 ms to import, and few results need it."""

from __future__ import annotations

import _pickle

from .codec import PAYLOAD_BYTES_MAX
from .failures import Refusal
from .unpicklable import FIX, WHY, unpicklable_path


def dumps(value: object) -> bytes:
    """Pickle with protocol 5; what plain pickle refuses (lambdas, classes of a notebook) goes through cloudpickle."""
    try:
        return _pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - pickling runs foreign code, which raises what it likes
        import cloudpickle

        data: bytes = cloudpickle.dumps(value, protocol=5)
        return data


def dump_result(value: object) -> bytes:
    """Raises `Refusal` that names the part of the result which cannot be sent."""
    try:
        data = dumps(value)
    except Exception:  # noqa: BLE001 - as above
        path, why = unpicklable_path(value, "result")
        raise Refusal("serialization", f"{path}: {why}", WHY, FIX) from None
    if len(data) > PAYLOAD_BYTES_MAX:
        raise Refusal(
            "serialization",
            f"The result has {len(data) >> 20} MiB; at most {PAYLOAD_BYTES_MAX >> 20} MiB can be returned.",
            fix="Write large results to a volume and return the path, or return them in parts with .map.",
        )
    return data
