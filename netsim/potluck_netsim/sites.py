"""Where simulated nodes stand: city, line and NAT.

Round trips between cities are those that WonderProxy measured and published ("Miles per Millisecond", 2011:
milliseconds of ping between its servers). Lines are what is sold to homes and what a campus has.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CITIES = ("Brisbane", "Dallas", "Fremont", "Milan", "Moscow", "New York", "Paris", "Sydney")
# Above the diagonal, row by row.
_PINGS_MS = (
    (221.60, 174.38, 350.12, 357.21, 245.89, 335.79, 33.45),
    (44.00, 140.00, 168.00, 36.80, 130.94, 221.72),
    (167.85, 214.59, 78.43, 176.22, 184.91),
    (67.08, 112.17, 21.61, 344.70),
    (131.29, 56.74, 387.09),
    (78.33, 319.33),
    (348.84,),
)
# Within a city.
_LOCAL_MS = 4.0
# More people live where more of these cities are near.
_PEOPLE = (1, 3, 4, 4, 2, 5, 5, 2)

MBIT = 1_000_000 // 8


def _one_way_us(one: int, other: int) -> int:
    low, high = min(one, other), max(one, other)
    return int(500 * (_LOCAL_MS if low == high else _PINGS_MS[low][high - low - 1]))


ONE_WAY_US = tuple(tuple(_one_way_us(one, other) for other in range(len(CITIES))) for one in range(len(CITIES)))


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes a second up and down; 0 is without a bound. The last mile is one way, in microseconds."""

    name: str
    up: int = 0
    down: int = 0
    last_mile_us: int = 0


# Cable, fibre and DSL as sold to homes (up much slower than down, but for fibre), and a campus. With their shares.
LINES = (
    (Line("cable", 20 * MBIT, 300 * MBIT, 8_000), 400),
    (Line("fibre", 500 * MBIT, 500 * MBIT, 2_000), 300),
    (Line("dsl", 10 * MBIT, 50 * MBIT, 12_000), 200),
    (Line("campus", 1000 * MBIT, 1000 * MBIT, 500), 100),
)
# Who can be dialled by all, by those who can be reached by a punched hole, and by nobody; with their shares.
NATS = (("open", 300), ("punchable", 500), ("closed", 200))


@dataclass(frozen=True, slots=True)
class Site:
    """`city` is an index of `CITIES`; below 0, latencies are drawn for each pair."""

    city: int = -1
    line: Line = Line("lan")
    nat: str = "open"


LAN = Site()


def draw_home(dice: random.Random) -> Site:
    """Somebody's home, or a campus."""
    (city,) = dice.choices(range(len(CITIES)), _PEOPLE)
    (line,) = dice.choices([each[0] for each in LINES], [each[1] for each in LINES])
    (nat,) = dice.choices([each[0] for each in NATS], [each[1] for each in NATS])
    return Site(city, line, nat)


def one_way_us(one: Site, other: Site) -> int:
    """Between two that have a city."""
    return ONE_WAY_US[one.city][other.city] + one.line.last_mile_us + other.line.last_mile_us
