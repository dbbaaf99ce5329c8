import dataclasses

import pytest
from click.testing import CliRunner

from potluck_netsim.__main__ import main
from potluck_netsim.faults import Faults
from potluck_netsim.report import told
from potluck_netsim.scenarios import Lab, Options, faults_of

HARSH = Faults(
    deaths_per_hour=120, away_us=2_000_000, freezes_per_hour=60, pauses_per_hour=60, slow_milli=300, raise_milli=200,
    straggler_milli=50, crash_milli=100, start_failed_milli=200, pool_failed_milli=100, cancelled_milli=200,
    gossip_lost_milli=200,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_a_mesh_keeps_its_promises(seed):
    report = Lab(Options(seed, nodes=10, minutes=2)).run()
    assert report.calls_ended > 20
    assert report.results + report.exceptions + sum(report.failures.values()) > report.calls_ended


@pytest.mark.parametrize("seed", range(3))
def test_a_mesh_keeps_its_promises_while_everything_goes_wrong(seed):
    report = Lab(Options(seed, nodes=15, minutes=2, faults=HARSH)).run()
    assert report.deaths > 10
    assert report.results > 50


def test_without_faults_nothing_fails_but_what_must():
    none = Faults(**dict.fromkeys((field.name for field in dataclasses.fields(Faults)), 0) | {"slow_factor": 1})
    report = Lab(Options(1, nodes=10, minutes=3, faults=none)).run()
    assert report.calls_ended == report.calls
    assert report.inputs == report.results + sum(report.failures.values())
    # Nobody has the GPU, the broken function fails everywhere, and the hasty one may run out of time.
    assert set(report.failures) <= {"no-peer", "image-import", "timeout"}


def test_faults_are_drawn_from_the_seed_and_each_can_be_set():
    assert len({faults_of(seed) for seed in range(50)}) == 50
    shown = CliRunner().invoke(
        main,
        ["lab", "--seed", "3", "--nodes", "5", "--minutes", "1", "--deaths-per-hour", "0", "--raise-milli", "1000"],
    )
    assert shown.exit_code == 0
    assert "deaths    0" in shown.output
    assert " 0 results" in shown.output
    expected = dataclasses.replace(faults_of(3), deaths_per_hour=0, raise_milli=1000)
    assert told(expected) in shown.output
