"""Owners with daily habits, and the idle policy that gives them their machine back.

The policy core is the node's own; what `policy.py` does with its reasons is done here on virtual time.
"""

from __future__ import annotations

from dataclasses import dataclass

from potluck_netsim.facts import OwnerCame, OwnerLeft
from potluck_netsim.node import Node
from potluck_netsim.world import START_US
from potluck_node.core import provider_events as pev
from potluck_node.core.policy import PolicyCore
from potluck_node.core.policy_rules import Facts, Policy

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000


@dataclass(frozen=True)
class Habit:
    """When somebody sits at the machine: hours of the local day, from and to (past midnight: over 24), and how many
    times in between, in the mean."""

    begins: float
    ends: float
    sittings: float


# Evenings at home; a day at work, with a break; nobody ever, as with a server.
HABITS = (Habit(18, 23.5, 2), Habit(9, 17, 3), Habit(12, 24, 4), Habit(0, 0, 0))


class Owner:
    """Of one node, whose time zone is `zone_h` hours away."""

    def __init__(self, node: Node, habit: Habit, zone_h: int, policy: Policy | None = None) -> None:
        self._node, self._world, self._habit, self._zone_us = node, node.world, habit, zone_h * HOUR_US
        self.core = PolicyCore(policy or Policy(preset="idle"))
        # When input was last seen; None while somebody sits there.
        self._left_us: int | None = START_US - DAY_US
        self._said = ""
        self._next_day(START_US)

    def _next_day(self, day_us: int) -> None:
        """Plan the sittings of a day."""
        habit, dice = self._habit, self._world.dice
        if habit.sittings:
            opens_us = day_us + int(habit.begins * HOUR_US) - self._zone_us
            span_us = int((habit.ends - habit.begins) * HOUR_US)
            for _ in range(dice.randint(0, round(2 * habit.sittings))):
                came_us = opens_us + dice.randrange(span_us)
                if came_us > self._world.now_us:
                    self._world.at(came_us, self.came)
            self._world.at(day_us + DAY_US, lambda: self._next_day(day_us + DAY_US))

    def came(self) -> None:
        """Somebody sits down, for a while."""
        if self._left_us is None:
            return
        self._left_us = None
        self._world.tell(self._node.name, "has its owner back")
        self._world.fact(OwnerCame(self._node.name, int(self.core.policy.grace_s * 1e6)))
        self._look()
        self._world.after(self._world.around(HOUR_US / 2), self.left)

    def left(self) -> None:
        self._left_us = self._world.now_us
        self._world.fact(OwnerLeft(self._node.name))
        self._look()

    def born(self) -> None:
        """The node is up again: it has to be told anew."""
        self._said = ""
        self._look()

    def _look(self) -> None:
        now_us = self._world.now_us
        idle_s = 0.0 if self._left_us is None else (now_us - self._left_us) / 1e6
        reasons = self.core.see(Facts(idle_s=idle_s), now_us)
        self._act(reasons[0].text if reasons else "")
        wait_us = min(self.core.wake_us or now_us + DAY_US, self._clear_us()) - now_us
        if self._left_us is not None and reasons:
            self._world.after(max(wait_us, 1_000), self._look)

    def _clear_us(self) -> int:
        """When the policy has nothing against work any more, as far as it goes by input."""
        idle_us = int((self.core.policy.idle_s or 0) * 1e6)
        now_us = self._world.now_us
        left_us = self._left_us + idle_us + 1 if self._left_us is not None else now_us + DAY_US
        return left_us if left_us > now_us else now_us + 1_000_000

    def _act(self, why: str) -> None:
        provider = self._node.provider
        if provider is None or not self._node.alive:
            return
        if not why:
            if self._said and provider.core.paused == self._said:
                self._node.later(0, lambda: provider.submit(pev.Resumed()))
            self._said = ""
        elif not self._said:
            self._said = why
            self._node.later(0, lambda: provider.submit(pev.Paused(why)))
            self._node.later(int(self.core.policy.grace_s * 1e6), lambda: self._end(why))

    def _end(self, why: str) -> None:
        provider = self._node.provider
        if provider and self._said == why:
            provider.submit(pev.Paused(why, now=True, own=False))
