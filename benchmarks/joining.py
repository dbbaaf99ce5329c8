"""From a token in hand to the first result: `potluck join`, `potluck up`, and a call of a small function, on a mesh of
a founder and a provider on this machine. JSON. The floor is the same call again, from a new process.

Run: python benchmarks/joining.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._common import report
from tests.e2e.mesh import Mesh, Node, run_cli, wait_until

CALL = (
    "from tests.e2e import sample\nwith sample.app.run(show_progress=False):\n    assert sample.add.remote(1, 2) == 3\n"
)
ROOT = Path(__file__).resolve().parent.parent


def call_s(node: Node) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", CALL], env=node.env, cwd=ROOT, check=True)
    return time.perf_counter() - start


def joined_s(mesh: Mesh, token: str, name: str) -> tuple[float, float]:
    """Seconds from the token to the result, and of one more call."""
    node = Node(mesh.folder, name)
    start = time.perf_counter()
    assert run_cli(node, "join", "--name", name, stdin=token).returncode == 0
    assert run_cli(node, "up", "--no-offer").returncode == 0
    call_s(node)
    taken = time.perf_counter() - start
    again = call_s(node)
    assert run_cli(node, "down").returncode == 0
    return taken, again


def main(rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mesh = Mesh(Path(folder))
        Path(folder).chmod(0o755)
        try:
            run_cli(Node(mesh.folder, "ann"), "mesh", "create", "lab", "--name", "ann")
            ann = mesh.caller("ann")
            token = run_cli(ann, "mesh", "invite", "--uses", str(rounds + 1)).stdout
            assert run_cli(Node(mesh.folder, "bob"), "join", "--name", "bob", stdin=token).returncode == 0
            mesh.provider("bob")
            wait_until(lambda: ann.status().peers, "finding bob")
            taken = [joined_s(mesh, token, f"n{number}") for number in range(rounds)]
        finally:
            mesh.stop()
    first, again = (statistics.median(times) for times in zip(*taken, strict=True))
    report(
        "joining",
        {"join_to_first_call_s": round(first, 2), "call_s": round(again, 2), "ratio": round(first / again, 1)},
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
