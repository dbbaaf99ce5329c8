"""Train for as long as it takes: checkpoints in a volume, and whoever takes over goes on from the last one.

A machine's owner may take it back at any time; the function is told, if there is time for that, and saves. Potluck then
runs the input elsewhere, where it finds what was committed. Run it with the same name again to train further.
"""

import json
import time
from pathlib import Path
from typing import Any

import potluck

app = potluck.App("checkpoints")
runs = potluck.Volume.from_name("checkpoints", create_if_missing=True)
RUNS = Path("/runs")

# A line to be found: y = 3x + 2.
POINTS = [(x / 10, 3 * x / 10 + 2) for x in range(-20, 21)]
RATE = 0.01


def improve(state: dict[str, Any]) -> None:
    """One step of gradient descent."""
    errors = [(x, state["slope"] * x + state["offset"] - y) for x, y in POINTS]
    state["slope"] -= RATE * sum(error * x for x, error in errors) / len(errors)
    state["offset"] -= RATE * sum(error for _, error in errors) / len(errors)
    state["step"] += 1


def save(file: Path, state: dict[str, Any]) -> None:
    """Whole or not at all, wherever the machine is when it goes away."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(state))
    fresh.replace(file)
    runs.commit()


@app.function(volumes={RUNS.as_posix(): runs}, timeout=3600)
def train(name: str, steps: int, every: int = 10, pause_s: float = 0.0) -> dict[str, Any]:
    """Train up to a step, from wherever this run is; `starts` says from where it went on each time."""
    runs.reload()
    file = RUNS / f"{name}.json"
    state = {"step": 0, "slope": 0.0, "offset": 0.0, "starts": []}
    if file.exists():
        state = json.loads(file.read_text())
    state["starts"].append(state["step"])
    print(f"{name} goes on from step {state['step']}")
    while state["step"] < steps:
        improve(state)
        time.sleep(pause_s)
        if state["step"] % every == 0 or state["step"] == steps:
            save(file, state)
        elif potluck.preempted():
            save(file, state)
            raise KeyboardInterrupt("whoever takes over goes on from here")
    return state


@app.local_entrypoint()
def main(name: str = "line", steps: int = 500, pause_s: float = 0.01) -> None:
    state = train.remote(name, steps, pause_s=pause_s)
    print(f"step {state['step']}: y = {state['slope']:.3f} x + {state['offset']:.3f}, from steps {state['starts']}")
