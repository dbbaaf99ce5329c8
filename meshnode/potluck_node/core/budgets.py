"""What calls may use before they are stopped: `max_gpu_seconds` and `max_cost`. Part of the call core.

What is counted is the worker time of every input that began, as its provider reports it at the end, and until then the
time since it began: no less than can be billed by then. Inputs that share workers share their time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from potluck.errors import LimitExceededError
from potluck.wire import Failure
from potluck.wire.control import Limit
from potluck_node.core.demand import Lease

# Limits that are remembered after their last call, so that the next one goes on from there; a program has a handful.
BUDGETS_MAX = 10_000


@dataclass(slots=True)
class Budget:
    """`spent_us` and `spent_cost` are of inputs that are over; cost is in microseconds of weight one."""

    limit: Limit
    spent_us: int = 0
    spent_cost: int = 0

    def left(self, running_us: int, running_cost: int) -> float:
        """The part of the limit that is left; 0 and below when there is none."""
        used = [
            (self.spent_us + running_us) / self.limit.lease_us if self.limit.lease_us else 0.0,
            (self.spent_cost + running_cost) / self.limit.cost if self.limit.cost else 0.0,
        ]
        return 1 - max(used)

    def failure(self) -> Failure:
        """For the inputs that are stopped, and those that are not begun."""
        limit = self.limit
        text = f"max_gpu_seconds={limit.lease_us / 1e6:g}" if limit.lease_us else f"max_cost={limit.cost / 1e6:g}"
        what = f"The limit {text} is used up." if not (limit.lease_us and limit.cost) else "A limit is used up."
        why = f"{self.spent_us / 1e6:.1f} s of workers were used, which cost {self.spent_cost / 1e6:.1f}"
        return Failure.of(LimitExceededError(what, why=why, fix="Raise it, or call with fewer inputs."))


class Budgets:
    """`weigh` gives what a microsecond on a lease's peer costs, in thousandths."""

    def __init__(self, weigh: Callable[[Lease], int]) -> None:
        self._weigh = weigh
        self._budgets: OrderedDict[str, Budget] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._budgets)

    def of(self, limit: Limit | None) -> Budget | None:
        """The budget of a call; calls with one name share it."""
        if limit is None or not (limit.lease_us or limit.cost):
            return None
        found = self._budgets.setdefault(limit.name, Budget(limit))
        self._budgets.move_to_end(limit.name)
        if len(self._budgets) > BUDGETS_MAX:
            self._budgets.popitem(last=False)
        return found

    def ended(self, lease: Lease, budget: Budget | None, run_us: int) -> None:
        """An input on a lease is over, and took so much."""
        if budget:
            budget.spent_us += run_us
            budget.spent_cost += run_us * self._weigh(lease) // 1000

    def broke(self, lease: Lease, now_us: int) -> None:
        """A lease is gone, and what it ran is billed or not: it counts."""
        for sent in lease.inputs.values():
            if sent.began_us:
                self.ended(lease, sent.budget, int((now_us - sent.began_us) * lease.part()))

    def look(self, leases: Iterable[Lease], now_us: int) -> tuple[list[Budget], int | None]:
        """Those that are used up, and when the next one will be if nothing ends before."""
        used: dict[str, list[float]] = {}
        for lease in leases:
            running = [sent for sent in lease.inputs.values() if sent.began_us and sent.budget]
            part, weight = (lease.part(), self._weigh(lease) / 1000) if running else (0.0, 0.0)
            for sent in running:
                assert sent.budget
                sums = used.setdefault(sent.budget.limit.name, [0.0, 0.0, 0.0, 0.0])
                us = (now_us - sent.began_us) * part
                for place, more in enumerate((us, us * weight, part, part * weight)):
                    sums[place] += more
        over, times = [], []
        for name, budget in self._budgets.items():
            us, cost, rate, cost_rate = used.get(name, [0.0] * 4)
            left = budget.left(int(us), int(cost))
            if left <= 0:
                over.append(budget)
            elif rate:
                times.append(now_us + _until(budget, us, cost, rate, cost_rate))
        return over, min(times, default=None)


def _until(budget: Budget, us: float, cost: float, rate: float, cost_rate: float) -> int:
    """Microseconds until one of its limits is reached at these rates."""
    limit, times = budget.limit, []
    if limit.lease_us:
        times.append((limit.lease_us - budget.spent_us - us) / rate)
    if limit.cost and cost_rate:
        times.append((limit.cost - budget.spent_cost - cost) / cost_rate)
    return max(1000, int(min(times, default=1e6)) + 1)
