"""Import time of the SDK against Modal's and a bare interpreter, alternating in the same run.

python benchmarks/imports.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics

from _common import environment, report, wall_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    ours = environment("potluck", "-e", ".")
    theirs = environment("modal", "modal")
    commands = {
        "bare": [ours, "-c", "pass"],
        "potluck": [ours, "-c", "import potluck"],
        "potluck_described": [
            ours,
            "-c",
            "import potluck; app = potluck.App('a'); app.function(image=potluck.Image.local_python())(print)",
        ],
        "modal_bare": [theirs, "-c", "pass"],
        "modal": [theirs, "-c", "import modal"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, command in commands.items():
            milliseconds = wall_ms(command)
            if number >= 2:  # the first rounds write byte code and fill the page cache
                taken[name].append(milliseconds)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    potluck, modal = middle["potluck"] - middle["bare"], middle["modal"] - middle["modal_bare"]
    report(
        "imports",
        {
            "rounds": rounds,
            "process_ms": {name: round(value, 1) for name, value in middle.items()},
            "import_potluck_ms": round(potluck, 1),
            "import_potluck_and_describe_an_app_ms": round(middle["potluck_described"] - middle["bare"], 1),
            "import_modal_ms": round(modal, 1),
            "potluck_over_modal": round(potluck / modal, 3),
        },
    )


if __name__ == "__main__":
    main()
