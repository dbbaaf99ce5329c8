"""The scenario of docs/netsim.md runs as it stands there, and the page names what there is."""

import re
from pathlib import Path

import pytest

from potluck_netsim.catalogue import SCENARIOS
from potluck_netsim.faults import Faults
from potluck_netsim.scenarios import Options

PAGE = (Path(__file__).parents[2] / "docs" / "netsim.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_it_is_short():
    assert len(EXAMPLE.splitlines()) <= 30


@pytest.mark.parametrize("seed", range(2))
def test_the_scenario_of_the_page_runs(seed):
    found: dict[str, object] = {}
    exec(EXAMPLE, found)
    lunch = found["Lunch"]
    report = lunch(Options(seed, lunch.usual_nodes, lunch.usual_minutes)).run()
    assert report.calls > 0
    assert [goal.met for goal in report.goals] == [True]


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_each_scenario_is_told(name):
    assert f"| `{name}` |" in PAGE


def test_options_that_it_shows_are_there():
    named = {each.replace("-", "_") for each in re.findall(r" --([a-z-]+-(?:ppm|milli|us|per-hour))", PAGE)}
    assert named
    assert named <= set(vars(Faults()))
