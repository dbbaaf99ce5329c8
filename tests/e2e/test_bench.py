"""A machine is measured, says so in its offer, and its peers show it."""

import json
from pathlib import Path

from tests.e2e.mesh import run_cli, wait_until

HELLO = Path(__file__).resolve().parents[2] / "examples" / "hello.py"


def test_what_a_provider_measures_is_seen_by_its_peers(mesh):
    caller, provider = mesh.caller(), mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding the provider")
    done = run_cli(provider, "bench", "--json")
    assert done.returncode == 0, done.stderr
    (score,) = json.loads(done.stdout)["scores"]
    assert score["gpu_model"] == ""
    assert score["compute"] > 0
    assert [each.compute for each in provider.status().scores] == [score["compute"]]
    wait_until(lambda: caller.status().peers[0].scores, "hearing of the score")
    assert caller.status().peers[0].scores[0].compute == score["compute"]
    assert "MiB/s a core" in run_cli(caller, "status").stdout
    audited = run_cli(caller, "ledger", "audit")
    assert "Nothing to say of 1 journals" in audited.stdout, audited.stderr
    assert run_cli(caller, "run", str(HELLO), "--count", "2").returncode == 0
    wait_until(lambda: "no GPU" in run_cli(caller, "ledger", "report", "--by", "gpu").stdout, "the receipt")
    # The last word of "29.1 MiB/s a core", wherever a narrow terminal breaks it.
    assert "core" in run_cli(caller, "ledger", "report", "--by", "gpu").stdout
