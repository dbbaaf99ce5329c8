"""The scenarios by name, as the command line knows them."""

from __future__ import annotations

from potluck_netsim.days import Exodus, Flash, Parted, Upgrade, Workday
from potluck_netsim.liars import Strangers
from potluck_netsim.members import Members
from potluck_netsim.scenarios import Lab
from potluck_netsim.spread import Spread
from potluck_netsim.villains import Hostile
from potluck_netsim.volunteers import Volunteers
from potluck_netsim.war import War

SCENARIOS: dict[str, type[Lab]] = {
    "lab": Lab,
    "workday": Workday,
    "volunteers": Volunteers,
    "flash": Flash,
    "parted": Parted,
    "strangers": Strangers,
    "exodus": Exodus,
    "upgrade": Upgrade,
    "image": Spread,
    "members": Members,
    "hostile": Hostile,
    "war": War,
}
