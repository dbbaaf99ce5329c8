"""Owners with daily habits, and the idle policy that gives them their machine back.

The policy and what the provider is told of it are the node's own cores; here they run on virtual time.
"""

from __future__ import annotations

from dataclasses import dataclass

from potluck_netsim.facts import OwnerCame, OwnerLeft
from potluck_netsim.node import Node
from potluck_netsim.world import START_US
from potluck_node.core.giving import Giving
from potluck_node.core.policy import PolicyCore
from potluck_node.core.policy_rules import Facts, Policy
from potluck_node.policy import SLOW_S

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
# How often a machine is looked at, as in `policy.py`.
LOOK_US = int(SLOW_S * 1e6)


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
        self.core, self._giving = PolicyCore(policy or Policy(preset="idle")), Giving()
        # When input was last seen; None while somebody sits there.
        self._left_us: int | None = START_US - DAY_US
        self._life, node.on_born, self._is_away = node.life, self._look, False
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
        if self._left_us is None or self._is_away:
            return
        self._left_us = None
        self._world.tell(self._node.name, "has its owner back")
        self._world.fact(OwnerCame(self._node.name, self._grace_us))
        self._look()
        self._world.after(self._world.around(HOUR_US / 2), self._left)

    def goes_away(self) -> None:
        """For good."""
        self._is_away = True
        self._left()

    def _left(self) -> None:
        if self._left_us is not None:
            return
        self._left_us = self._world.now_us
        self._world.fact(OwnerLeft(self._node.name))
        self._look()

    @property
    def _grace_us(self) -> int:
        return int(self.core.policy.grace_s * 1e6)

    def _look(self) -> None:
        """As the node's `policy.py` does, where a node is there to look; it looks again when something is due."""
        if self._node.alive:
            self._node.later(0, self._act)

    def _act(self) -> None:
        if self._life != self._node.life:
            # A node that was started anew has been told nothing.
            self._life, self._giving = self._node.life, Giving()
            if self._left_us is None:
                self._world.fact(OwnerCame(self._node.name, self._grace_us))
        now_us, provider = self._world.now_us, self._node.provider
        if provider is None:
            return
        idle_s = 0.0 if self._left_us is None else (now_us - self._left_us) / 1e6
        reasons = self.core.see(Facts(idle_s=idle_s), now_us)
        for event in self._giving.heed(reasons, provider.core.paused, self._grace_us, now_us):
            provider.submit(event)
        self._again(now_us)

    def _again(self, now_us: int) -> None:
        due = [time for time in (self.core.wake_us, self._giving.wake_us) if time is not None and time > now_us]
        if self._left_us is not None and self.core.reasons:
            # Nothing tells how long nobody has come: it is looked at.
            due.append(max(self._left_us + int((self.core.policy.idle_s or 0) * 1e6), now_us) + LOOK_US)
        if due:
            self._node.later(min(due) - now_us, self._act)
