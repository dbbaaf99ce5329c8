"""The command line as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.mesh import PATIENCE_S, run_cli, wait_until

from potluck_ledger.exported import export_lines

ROOT = Path(__file__).resolve().parent.parent.parent
POTLUCK = [sys.executable, "-m", "potluck.cli.main"]


@pytest.fixture
def alone(tmp_path):
    """A data folder without a node; whatever was started is stopped."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("POTLUCK_")}
    env["POTLUCK_HOME"] = str(tmp_path / "home")

    def run(*arguments):
        return subprocess.run(
            [*POTLUCK, *arguments],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 2,
            check=False,
        )

    yield run
    run("down")


def test_the_readmes_example_runs_by_itself(alone):
    readme = (ROOT / "README.md").read_text()
    example = (ROOT / "examples" / "hello.py").read_text()
    assert example in readme
    assert len(example.splitlines()) == 15
    done = alone("run", "examples/hello.py", "--count", "3")
    assert done.returncode == 0, done.stderr
    assert "one: 144" in done.stdout
    assert "many: [0, 1, 4]" in done.stdout
    assert "│ squaring 12" in done.stdout
    assert "lends" in alone("status").stdout


def test_up_status_pause_resume_down(alone):
    up = alone("up", "--name", "mira", "--cpus", "1")
    assert up.returncode == 0, up.stderr
    assert "mira is up" in up.stdout
    assert "potluck up --bootstrap /ip4/127.0.0.1" in up.stdout
    assert "running already" in alone("up").stdout
    assert alone("pause", "--reason", "lunch").returncode == 0
    assert json.loads(alone("status", "--json").stdout)["paused"] == "lunch"
    assert "paused: lunch" in alone("status").stdout
    assert alone("resume").returncode == 0
    assert json.loads(alone("status", "--json").stdout)["paused"] == ""
    assert alone("down").stdout == "The node has stopped.\n"
    without = alone("status")
    assert without.returncode == 1
    assert "potluck up" in without.stderr


def test_up_replaces_a_node_that_a_program_started_for_itself(alone):
    assert alone("run", "examples/hello.py", "--count", "1").returncode == 0
    assert json.loads(alone("status", "--json").stdout)["embedded"] is True
    assert alone("up", "--name", "mira").returncode == 0
    status = json.loads(alone("status", "--json").stdout)
    assert (status["name"], status["embedded"]) == ("mira", False)


def test_a_setting_that_is_misspelt_is_shown_when_the_node_starts(alone, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("cpsu = 1")
    up = alone("up")
    assert up.returncode == 1
    assert "Did you mean 'cpus'" in up.stderr


def test_config_show_explains_every_setting(alone):
    shown = alone("config", "show").stdout
    assert "store_gib = 50.0" in shown
    assert "Upper bound of the image store" in shown
    assert alone("config", "path").stdout.strip().endswith("config.toml")


def test_errors_have_three_lines_and_no_traceback(alone):
    done = alone("run", "absent.py")
    assert done.returncode == 1
    assert "There is no file absent.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_ledger_commands(mesh, tmp_path):
    caller = mesh.caller()
    ann = mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding ann")
    done = run_cli(caller, "run", "tests/e2e/sample.py::add", "--a", "1", cwd=ROOT)
    assert done.stdout == "2\n", done.stderr
    wait_until(lambda: caller.status().entries and ann.status().entries, "the receipts")
    assert "both" in run_cli(caller, "ledger", "list").stdout
    assert "0.0" in run_cli(ann, "ledger", "balance").stdout
    (receipt,) = json.loads(run_cli(caller, "ledger", "list", "--json").stdout)
    assert (receipt["label"], receipt["inputs"], receipt["countersigned"]) == ("sample.add", 1, True)
    (account,) = json.loads(run_cli(caller, "ledger", "balance", "--json").stdout)
    assert account["balance_us"] == -account["used_us"] < 0
    (cost,) = json.loads(run_cli(caller, "estimate", "tests/e2e/sample.py", "--json", cwd=ROOT).stdout)
    assert (cost["function"], cost["seen"], cost["input_us"]) == ("add", 1, receipt["lease_us"])
    assert "nothing to go by" in run_cli(caller, "estimate", "examples/hello.py", cwd=ROOT).stdout
    (line,) = json.loads(run_cli(caller, "ledger", "report", "--by", "function", "--json").stdout)
    assert (line["name"], line["inputs"], line["used_us"]) == ("sample.add", 1, account["used_us"])
    assert "sample.add" in run_cli(ann, "ledger", "report", "--by", "function", "--chart").stdout
    pictures = ("--svg", str(tmp_path / "bars.svg"), "--png", str(tmp_path / "bars.png"))
    assert "1 of 1 lines" in run_cli(ann, "ledger", "report", *pictures).stdout
    assert "</svg>" in (tmp_path / "bars.svg").read_text()
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    files = [str(tmp_path / name) for name in ("cas.jsonl", "ann.jsonl")]
    for node, file in zip((caller, ann), files, strict=True):
        assert run_cli(node, "ledger", "export", file).returncode == 0
    agreed = run_cli(caller, "ledger", "verify", *files)
    assert agreed.returncode == 0, agreed.stderr
    assert "All 2 journals agree." in agreed.stdout
    assert run_cli(ann, "ledger", "verify").returncode == 0
    assert "Nothing to say of 2 journals" in run_cli(ann, "ledger", "audit", files[0]).stdout

    owner, _ = ann.journal()
    Path(files[1]).write_text("\n".join(export_lines(owner, [])))
    differs = run_cli(caller, "ledger", "verify", *files)
    assert differs.returncode == 1
    assert "only" in differs.stderr
    Path(files[1]).write_text("nonsense")
    assert run_cli(caller, "ledger", "verify", *files).returncode == 1
