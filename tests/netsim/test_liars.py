"""Providers that forge results, in worlds where everything else goes wrong, too; and how soon one is caught."""

import pytest

from potluck.verify import CANARY_RATE
from potluck_netsim.liars import ADAPTIVE, QUORUM, Hunt, Strangers, canaries
from potluck_netsim.scenarios import Options
from potluck_netsim.world import PromiseBroken
from potluck_node.core.verify import Case

BOTH = canaries(round(1000 * CANARY_RATE))


@pytest.mark.parametrize("seed", range(8))
def test_no_lie_passes_a_quorum_nobody_honest_is_blamed_and_every_call_ends(seed):
    assert Strangers(Options(seed, nodes=10, minutes=1)).run().results > 20


def test_without_the_quorum_lies_would_pass(monkeypatch):
    monkeypatch.setattr(Case, "_needed", lambda self, kind: 1)
    with pytest.raises(PromiseBroken, match="is forged"):
        for seed in range(8):
            Strangers(Options(seed, nodes=10, minutes=1)).run()


@pytest.mark.parametrize("seed", range(12))
def test_who_forges_a_tenth_is_caught_within_a_thousand_answers(seed):
    found = Hunt(seed, BOTH).run(4000, stop_when_caught=True)
    assert found.caught
    assert found.answers <= 1000


def test_checking_costs_no_more_than_a_twentieth_of_a_thousand_calls_for_each_peer():
    found = Hunt(1, BOTH, lies=False).run(4000)
    assert not found.caught
    assert found.extra_milli <= 50


def test_a_quorum_delivers_no_lie_and_costs_a_second_run():
    assert Hunt(2, QUORUM).run(600).forged == 0
    assert Hunt(2, QUORUM, lies=False).run(600).extra_milli == pytest.approx(1000, abs=30)


def test_who_never_lies_is_never_banned():
    found = Hunt(3, ADAPTIVE, lies=False).run(1000)
    assert (found.caught, found.forged) == (False, 0)
