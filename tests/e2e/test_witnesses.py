"""A caller's journal is cosigned by its provider, over libp2p, and its export says so to anybody."""

import subprocess
import sys
from pathlib import Path

from tests.e2e import sample
from tests.e2e.mesh import run_cli, wait_until

SECOND_VERIFIER = Path(__file__).parents[2] / "examples" / "verify_ledger.py"


def test_an_export_says_who_cosigned_it(mesh, use_node, tmp_path):
    ann = mesh.provider("ann")
    witness = ann.journal()[0]
    caller = mesh.caller("cas", "--witnesses", witness)
    wait_until(lambda: caller.status().peers, "finding the provider")
    use_node(caller)
    with sample.app.run(show_progress=False):
        assert sample.add.remote(1, 1) == 2
    wait_until(lambda: caller.status().entries == 1, "the receipt")
    path = tmp_path / "export.jsonl"

    def is_cosigned():
        assert run_cli(caller, "ledger", "export", str(path)).returncode == 0
        return '"checkpoint"' in path.read_text()

    wait_until(is_cosigned, "the witness")
    told = run_cli(caller, "ledger", "verify", str(path))
    assert f"cosigned up to entry 1 by {witness}" in told.stdout.replace("\n", " ")
    command = [sys.executable, "-I", str(SECOND_VERIFIER), str(path)]
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 witnesses cosigned it up to entry 1" in second.stdout
