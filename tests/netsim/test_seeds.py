"""Worlds of every scenario: the same seeds each time, some that nobody tried, and all that once broke a promise."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from potluck_netsim import sweep
from potluck_netsim.__main__ import main
from potluck_netsim.catalogue import SCENARIOS

# With these, this file takes about half a minute of one core.
FIXED, FRESH = range(2), 1
CORPUS = [line for line in (Path(__file__).parent / "corpus.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("seed", FIXED)
@pytest.mark.parametrize("scenario", sorted(sweep.SMALL))
def test_a_seed_keeps_its_promises(scenario, seed):
    assert sweep.one(scenario, seed).story == ""


@pytest.mark.parametrize("scenario", sorted(sweep.SMALL))
def test_a_seed_that_nobody_tried(scenario):
    """What fails here is told with its seed, and belongs into the corpus."""
    for seed in sweep.fresh(FRESH):
        print(f"{scenario} --seed {seed}")
        assert sweep.one(scenario, seed).story == "", seed


@pytest.mark.parametrize("command", CORPUS)
def test_what_was_mended_stays_mended(command):
    shown = CliRunner().invoke(main, [*command.split(), "--no-shrink"])
    assert shown.exit_code == 0, shown.output


def test_each_scenario_is_swept():
    assert set(sweep.SMALL) == set(SCENARIOS)


def test_a_sweep_says_what_it_did():
    options = ["--seeds", "2", "--first", "1", "--scenario", "lab", "--workers", "1"]
    shown = CliRunner().invoke(sweep.main, options)
    assert shown.output == "seeds 1 … 2\n2 worlds, 0 with a broken promise\n"
