"""Three of ten are hostile: promises to the honest hold; and each defence is what prevents the opposite."""

import pytest
from tests.netsim.broken import first_broken

from potluck_netsim import villains
from potluck_netsim.scenarios import Options
from potluck_netsim.villains import Hostile, Refusing, Stalling
from potluck_node.core import hiring
from potluck_node.core.stalls import Stalls
from potluck_node.core.verify import Case


def mesh(seed, minutes=0.5):
    return Hostile(Options(seed, 10, minutes, Hostile.faults_of(seed)))


@pytest.mark.parametrize("seed", range(3))
def test_promises_to_the_honest_hold(seed):
    world = mesh(seed)
    report = world.run()
    assert world.spoils.inputs["served"] > 20
    assert len(report.goals) == 5
    assert world.witnesses.witnessed


def breaks(seeds=range(100)):
    return first_broken(mesh, seeds)


def test_callers_that_believe_the_first_answer_get_forged_results(monkeypatch):
    monkeypatch.setattr(Case, "_needed", lambda self, kind: 1)
    assert "is forged" in breaks()


def test_callers_that_believe_whoever_says_busy_wait_for_ever(monkeypatch):
    monkeypatch.setattr(hiring, "PUT_OFF_MAX", 1 << 30)
    # Where few can run what is called, it shows soon.
    monkeypatch.setattr(Hostile, "functions", ("heavy",))
    monkeypatch.setattr(villains, "TRICKS", (Refusing,))
    assert "still waits for its inputs" in breaks(range(1, 100))


def test_callers_that_forget_who_never_answers_pay_again_and_again(monkeypatch):
    monkeypatch.setattr(villains, "TRICKS", (Stalling,))
    monkeypatch.setattr(Hostile, "functions", ("work",))
    monkeypatch.setattr(Hostile, "call_every_us", 5_000_000)
    monkeypatch.setattr(Stalls, "ended", lambda *_: [])
    monkeypatch.setattr(Stalls, "overtaken", lambda *_: None)
    assert "for nothing" in first_broken(lambda seed: mesh(seed, 4), range(1, 100))
