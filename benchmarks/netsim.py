"""How far the simulator goes: a day of a thousand volunteers, and what a node costs.

`python benchmarks/netsim.py [NODES] [MINUTES]` prints JSON: seconds of one core for the run and for the same dice in a
bare loop (the floor of this machine), events a second, kilobytes a node, and what became of the calls.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from potluck_netsim.scenarios import Options
from potluck_netsim.volunteers import Volunteers

FLOOR_DRAWS = 1_000_000


def main(nodes: int = 1000, minutes: float = 24 * 60.0) -> None:
    floor_s = _floor()
    before_kib = _resident_kib()
    began_s = time.process_time()
    world = Volunteers(Options(3, nodes, minutes))
    built_kib = _resident_kib()
    report = world.run()
    spent_s = time.process_time() - began_s
    figures = {
        "nodes": nodes,
        "virtual_hours": round(report.virtual_us / 3.6e9, 2),
        "core_s": round(spent_s, 1),
        "core_s_of_a_million_draws": round(floor_s, 3),
        "events": report.events,
        "events_per_s": round(report.events / spent_s),
        "offers_told": report.offers,
        "kib_a_node_new": round((built_kib - before_kib) / nodes, 1),
        "kib_a_node_after": round((_resident_kib() - before_kib) / nodes, 1),
        "calls": report.calls,
        "inputs": report.inputs,
        "failures": report.failures,
        "success": report.success_milli / 1000,
        "input_p50_s": report.input_us[0] / 1e6,
        "input_p99_s": report.input_us[1] / 1e6,
    }
    print(json.dumps(figures))


def _floor() -> float:
    dice, began_s = random.Random(1), time.process_time()
    for _ in range(FLOOR_DRAWS):
        dice.randrange(1000)
    return time.process_time() - began_s


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


if __name__ == "__main__":
    main(*(kind(each) for kind, each in zip((int, float), sys.argv[1:], strict=False)))
