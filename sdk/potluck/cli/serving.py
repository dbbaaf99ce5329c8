"""One version of an app that `potluck serve` serves: run as `python -m potluck.cli.serving TARGET DESCRIPTOR`.

Loads and deploys it, reports by the descriptor, then keeps the deployment until standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from potluck.cli.find import find_app
from potluck.cli.serve import stamps
from potluck.deploy import record
from potluck.errors import Error
from potluck.running import Running


def serve(target: str, report: int) -> None:
    """Raises what loading the file raises."""
    before, begun_ns = set(sys.modules), time.time_ns()
    app = find_app(target)
    # What was written while it was read counts as changed.
    files = {name: at_ns if at_ns < begun_ns else 0 for name, at_ns in stamps(_own_files(before)).items()}
    running = Running(app, False)
    try:
        urls = dict(record(running, app, app.name, lasting=False).urls)
        running.keep_warm()
        with open(report, "w") as out:
            json.dump({"app": app.name, "files": files, "urls": urls}, out)
        sys.stdin.buffer.read()
    finally:
        running.close()


def _own_files(before: set[str]) -> list[str]:
    """The files of the modules that the program imported, but not those of installed packages."""
    places = [getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before]
    return [place for place in places if place and not _installed(Path(place))]


def _installed(place: Path) -> bool:
    return place.is_relative_to(Path(os.__file__).parent) or bool({"site-packages", "dist-packages"} & {*place.parts})


def main() -> int:
    try:
        serve(sys.argv[1], int(sys.argv[2]))
    except Error as error:
        print(error, file=sys.stderr)  # noqa: T201 - the user's terminal
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
