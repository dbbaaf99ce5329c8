"""What is asked of a provider: whether there is room, and whose turn it is. Part of the provider's core.

Whoever found no room asks again within a second or two. Meanwhile room that comes up is not given to somebody who has
used more of their share (`potluck_ledger.quotas`): there is no queue to keep, nor one to fill.
"""

from __future__ import annotations

from potluck.wire import FunctionSpec
from potluck.wire.lease import LeaseRefused, LeaseRequest
from potluck_node.core.admission import Machine, nonsense, refuse
from potluck_node.core.gpus import GpuDesk
from potluck_node.core.pools import Capacity
from potluck_node.core.staff import Staff

# How long a caller counts as waiting since it last asked: three times `BUSY_RETRY_US`.
WAIT_US = 3_000_000
# Callers that wait, the first to come forgotten first: more than ask one machine at once.
WAITING_MAX = 256


class Asks:
    """Answers requests for leases."""

    def __init__(self, node: str, capacity: Capacity, staff: Staff, gpus: GpuDesk) -> None:
        self._node, self._capacity, self._staff, self._gpus = node, capacity, staff, gpus
        self.waiting: dict[str, tuple[int, FunctionSpec]] = {}

    def refuse(self, caller: str, request: LeaseRequest, paused: str, now_us: int) -> LeaseRefused | None:
        """The refusal, or None when the lease is to be granted."""
        machine = self._machine(caller, request.function, paused, now_us)
        refusal = refuse(request, machine, now_us)
        self.waiting.pop(caller, None)
        if refusal and refusal.reason == "busy":
            self.waiting[caller] = (now_us, request.function)
            if len(self.waiting) > WAITING_MAX:
                del self.waiting[next(iter(self.waiting))]
        return refusal

    def _machine(self, caller: str, spec: FunctionSpec, paused: str, now_us: int) -> Machine:
        if nonsense(spec):
            return Machine(self._node, paused, 0, 0)
        gpus, room, lent = spec.resources.gpu, self._staff.room, self._capacity
        now = (room.possible(spec) or room.due(caller, spec, now_us)) if self._staff.may_pool(caller, spec) else 0
        never, waits = (self._gpus.why_never(gpus), self._gpus.why_not_now(gpus)) if gpus else ("", "")
        allowed, why = room.allowed(caller, spec)
        if now and not allowed and not self._staff.has_worker(caller, spec):
            now, waits = 0, why
        waits = "; ".join(why for why in (waits, room.why_held()) if why)
        first = self._first(caller, now, now_us) if now else 0
        most = room.workers_max(spec)
        return Machine(self._node, paused, most, now, never, waits, lent.allowed(caller, spec), lent.network, first)

    def _first(self, caller: str, places: int, now_us: int) -> int:
        """How many others come first: they wait, used less of their share, and could have what is free; 0 where it is
        enough for all."""
        room, share = self._staff.room, self._staff.room.share(caller)
        ahead = [
            other
            for other, (asked_us, spec) in self.waiting.items()
            if other != caller and now_us - asked_us < WAIT_US and room.share(other) < share and room.possible(spec)
        ]
        return len(ahead) if places <= len(ahead) else 0
