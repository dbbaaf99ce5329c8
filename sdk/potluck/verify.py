"""`Verify`: how results of peers that nobody here trusts are checked, and what of that the caller's program does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from potluck.errors import Error, ExecutionError, InvalidError

if TYPE_CHECKING:
    from potluck.functions import Function
    from potluck.wire.verify import Canary, Verification

# `wire.verify`, which would load msgspec; a test compares them.
REPLICAS_MAX, CANARIES_MAX, CANARY_BYTES_MAX = 9, 100, 256 << 10
# A disagreement between two that the record lets run alone is settled by up to so many.
ADAPTIVE_MOST = 5
# Five canaries among a thousand inputs: a proof beside what adaptive replication finds, and both together stay below a
# twentieth of the work (benchmarks/verification.py).
CANARY_RATE = 0.005


class Inputs(NamedTuple):
    """What the function was given; for `Verify(check=…)`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Verify:
    """How results of strangers are checked. `mode` is "quorum:2of3" (of at most three peers two must agree), "adaptive"
    (a second peer is asked always at first, and less and less often of one whose results held) or "none".

    `check` is asked in the calling program, and returns whether a result is right, `check(inputs, result)`, or whether
    two are the same, `check(inputs, first, second)`. Without it results are the same when they are equal, floats and
    arrays when they differ by at most `atol + rtol * abs(other)`. `same_gpu_class` compares only results of one model
    of GPU. `canaries` are pairs of arguments (a tuple, or the only one) and the known result: mixed in after
    `canary_rate` of the inputs, never delivered, each at most once to a peer.

    Raises `InvalidError` for what cannot be done.
    """

    def __init__(
        self,
        mode: str = "quorum:2of3",
        *,
        check: Callable[..., bool] | None = None,
        rtol: float = 0.0,
        atol: float = 0.0,
        same_gpu_class: bool = False,
        canaries: Iterable[tuple[Any, Any]] = (),
        canary_rate: float = CANARY_RATE,
    ) -> None:
        self.mode = mode
        self.needed, self.most, self.adaptive = parsed(mode)
        self.check, self.rtol, self.atol = check, rtol, atol
        self.single = check is not None and _asked_alone(check)
        self.same_gpu_class, self.canaries, self.canary_rate = same_gpu_class, tuple(canaries), canary_rate
        if min(rtol, atol) < 0 or not 0 <= canary_rate <= 1:
            raise InvalidError("Tolerances are at least 0, and canary_rate is from 0 to 1.")
        if len(self.canaries) > CANARIES_MAX:
            raise InvalidError(f"{len(self.canaries)} canaries are more than {CANARIES_MAX}.", fix="A few will do.")

    def __repr__(self) -> str:
        return f"Verify({self.mode!r})"

    def same(self, inputs: Callable[[], Inputs], one: Any, other: Any) -> bool:
        """Whether two results count as the same. Whatever `check` raises comes through."""
        if self.check and not self.single:
            return bool(self.check(inputs(), one, other))
        return equal(one, other, self.rtol, self.atol)


def checked_verify(given: Verify | str | None) -> Verify | None:
    """What `verify=` was given. Raises `InvalidError`."""
    if isinstance(given, str):
        given = Verify(given)
    if given is not None and not isinstance(given, Verify):
        raise InvalidError(f"verify={given!r:.100} says nothing.", fix='Write verify="quorum:2of3" or "adaptive".')
    return given


def parsed(mode: str) -> tuple[int, int, bool]:
    """(how many must agree, of how many at most, whether only as often as needed). Raises `InvalidError`."""
    if mode == "none":
        return 1, 1, False
    if mode == "adaptive":
        return 2, ADAPTIVE_MOST, True
    found = re.fullmatch(r"quorum:([1-9])of([1-9])", mode)
    if not found or not 2 <= int(found[1]) <= int(found[2]) <= REPLICAS_MAX:
        fix = f'Write "quorum:2of3", with 2 to {REPLICAS_MAX}, or "adaptive", or "none".'
        raise InvalidError(f"{mode!r:.60} is no way to verify results.", fix=fix)
    return int(found[1]), int(found[2]), False


def _asked_alone(check: Callable[..., bool]) -> bool:
    """Whether it tells of one result. Raises `InvalidError` when it takes neither two nor three things."""
    import inspect

    try:
        inspect.signature(check).bind(None, None)
    except TypeError:
        pass
    else:
        return True
    try:
        inspect.signature(check).bind(None, None, None)
    except TypeError:
        fix = "Write check(inputs, result), or check(inputs, first, second)."
        raise InvalidError("check= cannot be called with a result, nor with two.", fix=fix) from None
    return False


class Prepared(NamedTuple):
    """For one call: what the node is told, and what answers its questions."""

    wire: Verification
    judge: Callable[[tuple[bytes, ...]], int]


def compares(verify: Verify) -> bool:
    """Whether a program has to be there, to say which results are the same; else they are when their bytes are."""
    return verify.check is not None or bool(verify.rtol or verify.atol)


def prepared(function: Function[Any, Any]) -> Prepared | None:
    """For a call of `function`, if it says how to verify. Raises `InvalidError` for canaries that are no data."""
    verify = function._options.verify
    if verify is None:
        return None
    if function._prepared is None:
        judges = partial(judge, verify, leading=function._leading)
        function._prepared = Prepared(to_wire(verify, function._payload), judges)
    return function._prepared


def to_wire(verify: Verify, payload: Callable[[tuple[Any, ...], dict[str, Any]], bytes]) -> Verification:
    """For the node; `payload` packs arguments. Raises `InvalidError` for canaries whose result is no data."""
    from potluck.wire.verify import Verification

    single = verify.single
    return Verification(
        1 if single else verify.needed,
        max(verify.most, 3) if single else verify.most,
        verify.adaptive and not single,
        judged=True,
        single=single,
        same_gpu=verify.same_gpu_class,
        canary_milli=round(verify.canary_rate * 1000) if verify.canaries else 0,
        canaries=tuple(_canary(payload, *each) for each in verify.canaries),
    )


def _canary(payload: Callable[[tuple[Any, ...], dict[str, Any]], bytes], args: Any, expected: Any) -> Canary:
    from potluck.runner import failures, plain
    from potluck.wire.verify import Canary

    try:
        answer = plain.dumps(expected, "a canary's result")
    except failures.Refusal as refusal:
        raise InvalidError("A canary cannot be used.", why=str(refusal)) from None
    given = bytes(payload(args if isinstance(args, tuple) else (args,), {}))
    if max(len(given), len(answer)) > CANARY_BYTES_MAX:
        raise InvalidError(f"A canary is over {CANARY_BYTES_MAX >> 10} KiB.", fix="Use a smaller input.")
    return Canary(given, answer)


def judge(verify: Verify, payloads: tuple[bytes, ...], leading: int = 0) -> int:
    """The answer to `wire.verify.JudgeResults`: with which the new result agrees, -1 for none. Results come as data, so
    that reading them runs nothing. `leading` arguments are not the function's own. Raises `ExecutionError`, also for
    what the caller's own check raises."""
    from potluck.serialize import loads

    def inputs() -> Inputs:
        args, kwargs = loads(payloads[0])
        return Inputs(tuple(args[leading:]), kwargs)

    try:
        new = loads(payloads[1])
        if verify.single:
            assert verify.check
            return 0 if verify.check(inputs(), new) else -1
        return next((at for at, each in enumerate(payloads[2:]) if verify.same(inputs, new, loads(each))), -1)
    except Error as error:
        raise ExecutionError("Results could not be compared.", why=error.what) from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ExecutionError("Verify(check=…) raised.", why=why, fix="Let it return False.") from error


def equal(one: Any, other: Any, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Deep equality, with tolerances for floats; a NaN equals a NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return _close(one, other, rtol, atol)
    if isinstance(one, complex):
        return _close(one.real, other.real, rtol, atol) and _close(one.imag, other.imag, rtol, atol)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair, rtol, atol) for pair in zip(one, other, strict=True))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key], rtol, atol) for key in one)
    if hasattr(one, "__dataclass_fields__"):
        return equal(vars(one), vars(other), rtol, atol) if hasattr(one, "__dict__") else bool(one == other)
    return _equal_arrays(one, other, rtol, atol)


def _close(one: float, other: float, rtol: float, atol: float) -> bool:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return True
    return math.isfinite(one) and math.isfinite(other) and abs(one - other) <= atol + rtol * abs(other)


def _equal_arrays(one: Any, other: Any, rtol: float, atol: float) -> bool:
    """Of numpy and torch, found by what they have, so that neither is imported; all else by its own `==`."""
    kind = type(one).__module__.partition(".")[0]
    if kind == "torch":
        one, other, kind = one.numpy(), other.numpy(), "numpy"
    if kind != "numpy":
        return bool(one == other)
    import numpy

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind in "fc":
        return bool(numpy.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True))
    return bool(numpy.array_equal(one, other))
