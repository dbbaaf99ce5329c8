"""The example that trains with checkpoints: its provider's owner takes the machine back, and it goes on elsewhere."""

import json
import sys
from pathlib import Path

import pytest
from tests.e2e.mesh import Mesh, run_cli, wait_until

from potluck import calls

ROOT = Path(__file__).resolve().parent.parent.parent
EVERY, STEPS = 10, 120


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(calls, "_connection", None)
    import checkpoints

    yield checkpoints
    sys.modules.pop("checkpoints")
    if calls._connection:
        calls._connection.close()


@pytest.mark.parametrize("way", ["evicted", "killed"])
def test_training_goes_on_elsewhere_from_the_last_checkpoint(tmp_path, use_node, example, way):
    mesh = Mesh(tmp_path)
    try:
        caller = use_node(mesh.caller("cas", "--trust", "mesh"))
        providers = [mesh.provider("ann"), mesh.provider("bob")]
        wait_until(lambda: len(caller.status().peers) == 2, "finding the providers")
        peers = {node: node.status().peer for node in providers}

        def saved():
            """The checkpoint's step, 0 before the first."""
            if not [entry for entry in example.runs.listdir("/") if entry.path == "line.json"]:
                return 0
            return json.loads(b"".join(example.runs.read_file("line.json")))["step"]

        with example.app.run():
            running = example.train.spawn("line", STEPS, EVERY, 0.05)
            wait_until(lambda: saved() >= 2 * EVERY, "two checkpoints")
            first = next(node for node in providers if node.status().workers)
            if way == "evicted":
                assert run_cli(first, "pause", "--now", "--reason", "movie night").returncode == 0
            else:
                first.kill()
            state = running.get(timeout=90)
        # Nothing but what came after the last checkpoint was done again.
        last = last_commit_of(peers[first], example.runs)
        assert state["starts"] == [0, last]
        assert last >= 2 * EVERY
        expected = {"step": 0, "slope": 0.0, "offset": 0.0}
        while expected["step"] < STEPS:
            example.improve(expected)
        assert {name: state[name] for name in expected} == expected
    finally:
        mesh.stop()


def last_commit_of(peer, runs):
    """The step of the last checkpoint that this machine committed, as the history has it."""
    last = next(version.version for version in runs.log() if version.by.endswith(peer[-8:]))
    runs.restore(last, "line.json")
    return json.loads(b"".join(runs.read_file("line.json")))["step"]
