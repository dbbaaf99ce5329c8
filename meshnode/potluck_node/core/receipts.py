"""Receipts: the provider writes one from its meter, the caller checks it against its own. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from potluck.wire import FunctionSpec, function_id
from potluck.wire.lease import InputDone
from potluck_ledger.entries import (
    GPU_MAX,
    LEASE_MAX,
    METHOD_MAX,
    MODEL_MAX,
    QUALITY_MAX,
    REASON_MAX,
    TIER_MAX,
    Receipt,
    cut,
    read_receipt,
)  # fmt: skip
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.keys import is_ed25519
from potluck_ledger.report import labelled
from potluck_ledger.vouchers import LATENCY_SLACK_US
from potluck_node.core.gpu_meter import GpuUse
from potluck_node.core.meter import LeaseMeter, payload_digest

# Quartz drifts by up to 100 ppm, and Linux lets whoever disciplines its clock speed it up or slow it down by 500 ppm,
# the monotonic one with it (adjtimex(2)): of two clocks, twice that. 1 ms on top for rounding.
DRIFT_PPM = 1_000
ROUNDING_US = 1_000


@dataclass
class CallerMeter:
    """The caller's own account of a lease: what it sent, when, and what came back. Times are monotonic microseconds."""

    meter: LeaseMeter = field(default_factory=LeaseMeter)
    seen_us: int = 0
    overcharged: str = ""
    _sent: dict[tuple[int, int], tuple[int, bytes]] = field(default_factory=dict)
    _begun: set[tuple[int, int]] = field(default_factory=set)

    def sent(self, number: int, attempt: int, payload: bytes, now_us: int) -> None:
        self._sent[number, attempt] = (now_us, payload_digest(payload))

    def bound_us(self, now_us: int) -> int:
        """At most so much has been used so far: what was seen of inputs that are done, and the time since others were
        sent, if they have begun."""
        running_us = sum(
            now_us - sent_us + LATENCY_SLACK_US for key, (sent_us, _) in self._sent.items() if key in self._begun
        )
        seen_us = self.seen_us + running_us
        return seen_us + seen_us * DRIFT_PPM // 1_000_000 + ROUNDING_US

    def began(self, number: int, attempt: int) -> None:
        """The provider says that it runs an input."""
        if (number, attempt) in self._sent:
            self._begun.add((number, attempt))

    def came(self, done: InputDone, now_us: int) -> None:
        """Count an outcome; a provider that says it ran longer than we waited is noted."""
        self._begun.discard((done.input, done.attempt))
        sent_us, digest = self._sent.pop((done.input, done.attempt), (now_us, bytes(32)))
        window_us = now_us - sent_us
        if done.run_us > window_us + window_us * DRIFT_PPM // 1_000_000 + ROUNDING_US:
            self.overcharged = f"input {done.input}: {done.run_us} µs are claimed, {window_us} µs passed here"
        self.seen_us += window_us
        self.meter.add(done, digest)


def unbillable(lease: str, caller: str) -> str:
    """Why no receipt could be written of a lease, or "": its name is the caller's choice, and so is the kind of its
    key."""
    if not 0 < len(lease.encode()) <= LEASE_MAX:
        return f"its name has not from 1 to {LEASE_MAX} bytes"
    return "" if is_ed25519(caller) else "its caller has no Ed25519 key"


def write_receipt(
    *, lease: str, caller: str, provider: str, spec: FunctionSpec, meter: LeaseMeter, times: tuple[int, int],
    nonce: bytes, reason: str, gpu: GpuUse | None = None, tier: str = "",
) -> Receipt:  # fmt: skip
    """The provider's receipt; `times` is (start, end) in Unix microseconds. With GPUs their use counts as busy."""
    busy_us = round(gpu.busy_us) if gpu else meter.cpu_us
    return Receipt(
        lease=lease,
        caller=caller,
        provider=provider,
        function=function_id(spec),
        label=labelled(spec.app, spec.name),
        image=spec.image,
        nonce=nonce,
        started_us=times[0],
        ended_us=max(times),
        lease_us=meter.run_us,
        busy_us=min(busy_us, meter.run_us),
        energy_mj=round(gpu.energy_mj) if gpu else 0,
        inputs=meter.inputs,
        work=meter.work,
        gpu=_several(list(gpu.gpus)) if gpu else "",
        gpu_model=_models(gpu) if gpu else "",
        method=cut(gpu.method() if gpu else "wall; busy: rusage", METHOD_MAX),
        quality=cut(gpu.quality() if gpu else "provider's clock; busy: the worker's word", QUALITY_MAX),
        reason=cut(reason, REASON_MAX),
        tier=cut(tier, TIER_MAX),
    )


def better(ours: bytes, theirs: bytes) -> bytes:
    """What came back countersigned, if it is the same receipt, else ours."""
    try:
        envelope, receipt = read_receipt(theirs)
        same = envelope.body == read_receipt(ours)[0].body and envelope.signers == [receipt.provider, receipt.caller]
    except EnvelopeError:
        same = False
    return theirs if same else ours


def _several(uuids: list[str]) -> str:
    """As many as fit: "GPU-a,GPU-b", or "GPU-a+7"."""
    text = ",".join(uuids)
    return text if len(text.encode()) <= GPU_MAX else f"{cut(uuids[0], GPU_MAX - 4)}+{len(uuids) - 1}"


def _models(gpu: GpuUse) -> str:
    counts = Counter(each.model for each in gpu.gpus.values())
    text = ", ".join(f"{count}x {model}" if count > 1 else model for model, count in counts.items())
    return cut(text, MODEL_MAX)


def objection(receipt: Receipt, lease: str, caller: str, provider: str, spec: FunctionSpec, own: CallerMeter) -> str:
    """Why the caller does not sign, or "" when every figure fits what it saw itself."""
    if (receipt.lease, receipt.caller, receipt.provider) != (lease, caller, provider):
        return "the receipt is for another lease"
    if (receipt.function, receipt.image) != (function_id(spec), spec.image):
        return "the receipt names another function or image"
    if own.overcharged:
        return own.overcharged
    if receipt.lease_us != own.meter.run_us:
        return f"{receipt.lease_us} µs are billed, {own.meter.run_us} µs were reported input by input"
    if receipt.inputs != own.meter.inputs or receipt.work != own.meter.work:
        return "the receipt does not cover the inputs and outcomes seen here"
    return ""
