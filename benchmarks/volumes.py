"""Volumes between two nodes: what a commit of one change costs in a large volume, in bytes and seconds.

python benchmarks/volumes.py [--megabytes 1000] [--rounds 5]

Both nodes are in a network namespace of their own, whose loopback counts all that travels between them: commits, calls,
heartbeats. "small" writes a file of 1 kB, "block" 64 KiB in the middle of a file of a tenth of the volume, "new" a file
of 1 MB; all random bytes. Ratios are against the volume's size; `copy_s` is a copy of as many bytes on this machine's
disk. Needs root, or user namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from _common import report, two_nodes

INSIDE = "POTLUCK_BENCH_NETWORK"


def alone() -> None:
    """Start again in a network that nobody else uses."""
    script = 'ip link set lo up && exec "$@"'
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--net", "--", "sh", "-c", script, "sh", sys.executable, *sys.argv]
    os.execvpe(command[0], command, os.environ | {INSIDE: "1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not os.environ.get(INSIDE):
        alone()
    with two_nodes("--trust", "mesh") as env:
        program = Path(__file__).with_name("_volume.py")
        command = [sys.executable, program, str(options.megabytes), str(options.rounds)]
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
    figures = json.loads(done.stdout)
    rounded = {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in figures.items()}
    report("volumes", rounded)


if __name__ == "__main__":
    main()
