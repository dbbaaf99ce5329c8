"""What calls may use before they are stopped: `max_gpu_seconds` and `max_cost`. Part of the call core.

What is counted is the worker time of every input that began, as its provider reports it at the end, and until then the
time since it began: no less than can be billed by then. Inputs that share workers share their time. What a function
calls or spawns counts against the limits of its own call as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from potluck.errors import LimitExceededError
from potluck.wire import Failure
from potluck.wire.common import Limit
from potluck_node.core.demand import Lease, Sent
from potluck_node.core.events import CallOpened

# Limits that are remembered after their last call, so that the next one goes on from there; a program has a handful.
BUDGETS_MAX = 10_000


@dataclass(slots=True)
class Budget:
    """`spent_us` and `spent_cost` are of inputs that are over; cost is in microseconds of weight one."""

    limit: Limit
    spent_us: int = 0
    spent_cost: int = 0

    def known(self, spent: tuple[int, int]) -> None:
        """So much was used before the node's last restart."""
        self.spent_us, self.spent_cost = max(self.spent_us, spent[0]), max(self.spent_cost, spent[1])

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
        self._named: OrderedDict[str, Budget] = OrderedDict()
        # Of each call that is open and has some.
        self._open: dict[str, tuple[Budget, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def opened(self, event: CallOpened, leases: Mapping[str, Lease]) -> tuple[Budget, ...]:
        """Those of a call, and of the inputs that have asked for it; calls with one name share one."""
        own, function = event.limit, event.function.limit
        limits = (own, function) if event.asked else (own or function,)
        found = [self._of(limit) for limit in limits if limit and (limit.lease_us or limit.cost)]
        for budget in found[:1]:
            budget.known(event.spent)
        found += [budget for sent in _asking(event.asked, leases) for budget in sent.budgets]
        for limit, *spent in event.under:
            found.append(self._of(limit))
            found[-1].known((spent[0], spent[1]))
        budgets = tuple({id(budget): budget for budget in found}.values())
        if budgets:
            self._open[event.call] = budgets
        return budgets

    def _of(self, limit: Limit) -> Budget:
        if not limit.name:
            return Budget(limit)
        return self._remember(self._named.get(limit.name) or Budget(limit))

    def _remember(self, budget: Budget) -> Budget:
        self._named[budget.limit.name] = budget
        self._named.move_to_end(budget.limit.name)
        if len(self._named) > BUDGETS_MAX:
            self._named.popitem(last=False)
        return budget

    def shared(
        self, asked: tuple[str, int], leases: Mapping[str, Lease], new: Callable[[], str]
    ) -> tuple[tuple[Limit, int, int], ...]:
        """Those of the inputs that ask for a call which may outlive them, as `CallOpened.under` has it. Each has a name
        from now on, a `new` one if need be."""
        chains = (_binding(sent.budgets) for sent in _asking(asked, leases))
        budgets = {id(budget): budget for chain in chains for budget in chain}
        for budget in budgets.values():
            if not budget.limit.name:
                budget.limit = replace(budget.limit, name=new())
            self._remember(budget)
        return tuple((each.limit, each.spent_us, each.spent_cost) for each in budgets.values())

    def spent(self, call: str) -> dict[str, tuple[int, int]]:
        """What counts against the limits of an open call so far: under the call's own name, as `CallOpened.spent` has
        it, and those of the limits."""
        budgets = self._open.get(call, ())
        found = {each.limit.name: (each.spent_us, each.spent_cost) for each in budgets if each.limit.name}
        if budgets:
            found[call] = budgets[0].spent_us, budgets[0].spent_cost
        return found

    def closed(self, call: str) -> None:
        """A call is over; what has a name is remembered."""
        self._open.pop(call, None)

    def ended(self, lease: Lease, budgets: tuple[Budget, ...], run_us: int) -> None:
        """An input on a lease is over, and took so much."""
        for budget in budgets:
            budget.spent_us += run_us
            budget.spent_cost += run_us * self._weigh(lease) // 1000

    def broke(self, lease: Lease, now_us: int) -> None:
        """A lease is gone, and what it ran is billed or not: it counts."""
        for sent in lease.inputs.values():
            if sent.began_us:
                self.ended(lease, sent.budgets, int((now_us - sent.began_us) * lease.part()))

    def look(self, leases: Iterable[Lease], now_us: int) -> tuple[dict[str, Budget], int | None]:
        """The calls that have used one of theirs up, and which; and when the next will be if nothing ends before."""
        used = self._running(leases, now_us)
        over, times = {}, []
        for call, budgets in self._open.items():
            for budget in budgets:
                us, cost, rate, cost_rate = used.get(id(budget), (0.0, 0.0, 0.0, 0.0))
                if budget.left(int(us), int(cost)) <= 0:
                    over[call] = budget
                elif rate:
                    times.append(now_us + _until(budget, us, cost, rate, cost_rate))
        return over, min(times, default=None)

    def _running(self, leases: Iterable[Lease], now_us: int) -> dict[int, list[float]]:
        """Of each budget what runs has used, in time and cost, and how much more of both each microsecond."""
        used: dict[int, list[float]] = {}
        for lease in leases:
            running = [sent for sent in lease.inputs.values() if sent.began_us and sent.budgets]
            part, weight = (lease.part(), self._weigh(lease) / 1000) if running else (0.0, 0.0)
            for sent in running:
                us = (now_us - sent.began_us) * part
                for budget in sent.budgets:
                    sums = used.setdefault(id(budget), [0.0, 0.0, 0.0, 0.0])
                    for place, more in enumerate((us, us * weight, part, part * weight)):
                        sums[place] += more
        return used


def _asking(asked: tuple[str, int] | None, leases: Mapping[str, Lease]) -> list[Sent]:
    """The inputs of which one has asked for a call: who does not say which has asked for all of the lease."""
    lease = leases.get(asked[0]) if asked else None
    if not asked or lease is None:
        return []
    sent = lease.inputs.get(asked[1])
    return [sent] if sent else list(lease.inputs.values())


def _binding(budgets: tuple[Budget, ...]) -> list[Budget]:
    """Those that may be used up first, of a call's own and, after each, that of the call in which it was made: what
    counts for one counts for all behind it. So functions that spawn themselves do not gather limits for ever."""
    kept: list[Budget] = []
    for budget in reversed(budgets):
        if not any(_within(outer.limit, budget.limit) for outer in kept):
            kept.insert(0, budget)
    return kept


def _within(outer: Limit, limit: Limit) -> bool:
    pairs = (outer.lease_us, limit.lease_us), (outer.cost, limit.cost)
    return all(not inner or 0 < out <= inner for out, inner in pairs)


def _until(budget: Budget, us: float, cost: float, rate: float, cost_rate: float) -> int:
    """Microseconds until one of its limits is reached at these rates."""
    limit, times = budget.limit, []
    if limit.lease_us:
        times.append((limit.lease_us - budget.spent_us - us) / rate)
    if limit.cost and cost_rate:
        times.append((limit.cost - budget.spent_cost - cost) / cost_rate)
    return max(1000, int(min(times, default=1e6)) + 1)
