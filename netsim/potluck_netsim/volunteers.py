"""A thousand volunteers for a day: homes all over the world, that come and go, with owners who want their machine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from potluck_netsim.faults import Faults
from potluck_netsim.node import Node
from potluck_netsim.owner import HABITS, Owner
from potluck_netsim.scenarios import MINUTE_US, Lab, Options
from potluck_netsim.sites import Site, draw_home
from potluck_netsim.world import Trace

# How far each city's clocks are from Greenwich's, hours.
ZONES = (10, -6, -8, 1, 3, -5, 1, 10)
CALLS_A_DAY = 12
# Sessions of machines in volunteer computing have a median of some hours and a long tail (Anderson and Fedak, "The
# computational and storage potential of volunteer computing", 2006; Javadi et al., 2009: Weibull, shape 0.4 to 0.6).
SESSION_US, SESSION_SHAPE = 5 * 60 * MINUTE_US, 0.5


class Volunteers(Lab):
    call_every_us = 24 * 60 * MINUTE_US / CALLS_A_DAY
    signed = False
    usual_nodes, usual_minutes = 1000, 24 * 60.0

    def __init__(self, options: Options, write: Trace = None) -> None:
        super().__init__(options, write)
        self.owners = [self._owner(node) for node in self.nodes]

    def _site(self) -> Site:
        return draw_home(self.world.dice)

    def _owner(self, node: Node) -> Owner:
        return Owner(node, self.world.dice.choice(HABITS), ZONES[node.site.city])

    @classmethod
    def faults_of(cls, seed: int) -> Faults:
        """Machines come and go by their sessions, and pause by their owners."""
        return replace(super().faults_of(seed), deaths_per_hour=0, pauses_per_hour=0)

    def _plan(self, node: Node) -> None:
        super()._plan(node)
        self.world.after(self._session_us(), partial(self._leave, node))

    def _session_us(self) -> int:
        return 1 + int(self.world.dice.weibullvariate(SESSION_US, SESSION_SHAPE))

    def _leave(self, node: Node) -> None:
        if self.world.now_us < self.ends_us:
            self._kill(node)
            self.world.after(self._session_us(), partial(self._leave, node))
