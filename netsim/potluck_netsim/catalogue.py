"""The scenarios by name, as the command line knows them."""

from __future__ import annotations

from collections.abc import Callable

from potluck_netsim.liars import Strangers
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.volunteers import Volunteers

Scenario = Callable[[Options, Callable[[str], None] | None], Lab]

SCENARIOS: dict[str, Scenario] = {"lab": Lab, "strangers": Strangers, "volunteers": Volunteers}
