"""Work of others that a provider's owner ends: it runs elsewhere, and does not come back for a while. Part of the
provider's core."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from potluck.errors import RefusedError
from potluck.wire import Failure, FunctionSpec, function_id
from potluck.wire.lease import LeaseRefused
from potluck_node.core import provider_events as ev
from potluck_node.core.pools import Pool

# How long a function whose work was ended is not taken again from that caller: the owner is not to do it over and over.
AWAY_US = 600_000_000
# Of so many functions; more than an owner ends in that time.
AWAY_MAX = 256
ENDED = "its owner ended it"


class SendingAway:
    """`us` is the node's own id, whose work is ended by whoever called; `leave` ends a lease, `end` a pool."""

    def __init__(
        self, node: str, us: str, pools: Mapping[str, Pool], leave: Callable[[str, str, int], None],
        end: Callable[[Pool, str], None],
    ) -> None:  # fmt: skip
        self._node, self._us, self._pools, self._leave, self._end = node, us, pools, leave, end
        # (caller, function) → until when.
        self._away: dict[tuple[str, str], int] = {}

    def on_ended(self, event: ev.WorkEnded, now_us: int) -> None:
        """All that runs of a worker's function for its caller ends."""
        pool = next((each for each in self._pools.values() if event.worker in each.workers), None)
        if pool is None or pool.caller == self._us:
            return
        self._away = {key: until_us for key, until_us in self._away.items() if until_us > now_us}
        if len(self._away) >= AWAY_MAX:
            del self._away[next(iter(self._away))]
        self._away[pool.caller, pool.function] = now_us + AWAY_US
        for worker in pool.workers.values():
            # So that nobody is blamed for what is lost.
            worker.warned = worker.warned or ENDED
        for lease in sorted(pool.leases):
            self._leave(lease, ENDED, now_us)
        self._end(pool, ENDED)

    def refuse(self, caller: str, spec: FunctionSpec, now_us: int) -> LeaseRefused | None:
        """The refusal of what was sent away, for as long as that holds."""
        left_us = self._away.get((caller, function_id(spec)), 0) - now_us if self._away else 0
        if left_us <= 0:
            return None
        return LeaseRefused("paused", Failure.of(RefusedError(f"{self._node} takes none of it.", why=ENDED)), left_us)
