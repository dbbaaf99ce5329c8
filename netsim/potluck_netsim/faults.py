"""What goes wrong in a world: one struct, drawn from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Faults:
    """Rates are per node and hour; shares are in thousandths; times are means unless they say otherwise."""

    deaths_per_hour: int = 6
    silent_milli: int = 500  # of the deaths: unplugged, so that nobody is told
    away_us: int = 30_000_000  # from a death to the rebirth
    freezes_per_hour: int = 2
    freeze_us: int = 3_000_000
    pauses_per_hour: int = 2  # the owner takes the machine back for a while
    slow_milli: int = 100  # of the nodes
    slow_factor: int = 10
    raise_milli: int = 50  # of the inputs
    straggler_milli: int = 10  # of the inputs
    crash_milli: int = 10  # of the runs: the worker dies
    start_failed_milli: int = 10  # of the workers
    pool_failed_milli: int = 10  # of the sandboxes: they do not start
    cancelled_milli: int = 50  # of the calls
    latency_min_us: int = 200
    latency_max_us: int = 80_000
    packet_lost_milli: int = 0  # of the messages: they come later
    gossip_lost_milli: int = 20
    gossip_doubled_milli: int = 0
    cuts_per_hour: int = 0  # of the whole mesh: some nodes and the others do not hear each other
    cut_us: int = 20_000_000
    one_way_milli: int = 300  # of the cuts
    skewed_milli: int = 0  # of the nodes: their clock is wrong by up to `skew_us`
    skew_us: int = 60_000_000
    drift_ppm: int = 0  # of each node's clock, at most
    disk_us: int = 0  # what a write takes
    write_crash_milli: int = 0  # of the writes: the power fails just before or after
    disk_full_per_hour: int = 0
    disk_full_us: int = 30_000_000
    gpu_lost_per_hour: int = 0  # for `away_us`
    old_milli: int = 0  # of the nodes: of an older version, which the others do not understand
    stall_milli: int = 0  # of the providers: grant leases and never answer


def none() -> Faults:
    """Nothing goes wrong, and everybody is near."""
    rates = [each.name for each in fields(Faults) if each.name.endswith(("_per_hour", "_milli", "_ppm"))]
    return Faults(**dict.fromkeys(rates, 0), disk_us=0, latency_max_us=Faults.latency_min_us)


def draw_faults(dice: random.Random) -> Faults:
    """A world's faults: often mild, sometimes harsh, each kind on its own."""
    return Faults(
        deaths_per_hour=dice.choice((0, 6, 20, 60)),
        silent_milli=dice.choice((0, 500, 1000)),
        away_us=dice.choice((500_000, 10_000_000, 60_000_000)),
        freezes_per_hour=dice.choice((0, 6, 30)),
        freeze_us=dice.choice((500_000, 3_000_000, 15_000_000)),
        pauses_per_hour=dice.choice((0, 6, 30)),
        slow_milli=dice.choice((0, 100, 300)),
        slow_factor=dice.choice((3, 10)),
        raise_milli=dice.choice((0, 50, 200)),
        straggler_milli=dice.choice((0, 10, 50)),
        crash_milli=dice.choice((0, 10, 100)),
        start_failed_milli=dice.choice((0, 10, 200)),
        pool_failed_milli=dice.choice((0, 10, 100)),
        cancelled_milli=dice.choice((0, 50, 200)),
        latency_min_us=dice.choice((50, 1_000)),
        latency_max_us=dice.choice((2_000, 80_000, 300_000)),
        gossip_lost_milli=dice.choice((0, 20, 200)),
        packet_lost_milli=dice.choice((0, 0, 10, 50)),
        gossip_doubled_milli=dice.choice((0, 0, 100)),
        cuts_per_hour=dice.choice((0, 0, 30)),
        cut_us=dice.choice((1_000_000, 20_000_000, 120_000_000)),
        one_way_milli=dice.choice((0, 300, 1000)),
        skewed_milli=dice.choice((0, 0, 200)),
        skew_us=dice.choice((1_000_000, 60_000_000)),
        drift_ppm=dice.choice((0, 50, 200)),
        disk_us=dice.choice((0, 0, 3_000, 200_000)),
        write_crash_milli=dice.choice((0, 0, 5)),
        disk_full_per_hour=dice.choice((0, 0, 6)),
        disk_full_us=dice.choice((5_000_000, 60_000_000)),
        gpu_lost_per_hour=dice.choice((0, 0, 20)),
        old_milli=dice.choice((0, 0, 0, 200)),
        stall_milli=0,
    )
