"""An owner who ends what runs for others."""

import pytest
from tests.meshnode.core.test_provider import Provider
from tests.meshnode.core.worlds import spec

from potluck.wire.lease import CloseLease, InputDone, LeaseGranted, LeaseRefused
from potluck_node.core import provider_events as ev
from potluck_node.core import sending
from potluck_node.core.sending import AWAY_US, ENDED


@pytest.fixture
def made():
    provider = Provider(cpu_milli=4000)
    provider.pool, provider.worker = provider.ready(inputs=2)
    return provider


def test_all_of_its_function_ends_without_blame_and_the_bill_is_written(made):
    made.send(ev.WorkEnded(made.worker))
    assert [(done.lost, done.yielded) for done in made.posts(InputDone)] == [(ENDED, True)] * 2
    assert made.posts(CloseLease) == [CloseLease(ENDED)]
    assert made.only(ev.SettleLease).reason == ENDED
    assert made.only(ev.ClosePool).pool == made.pool


def test_it_does_not_come_back_for_a_while_and_all_else_does(made):
    made.send(ev.WorkEnded(made.worker))
    made.send(ev.PoolGone(made.pool))
    made.now_us += 1_000_000
    made.ask("l2")
    (refused,) = made.posts(LeaseRefused)
    assert (refused.reason, refused.failure.why, refused.retry_after_us) == ("paused", ENDED, AWAY_US - 1_000_000)
    made.ask("l3", function=spec(name="other"))
    assert made.posts(LeaseGranted)
    made.ask("l4", caller="dan")
    assert made.posts(LeaseGranted)
    made.now_us += AWAY_US
    made.ask("l5")
    assert made.posts(LeaseGranted)


def test_who_is_gone_meanwhile_is_not_ended_and_own_work_never(made):
    made.send(ev.WorkEnded("nobody"))
    assert made.actions == []
    made.core._sending._us = "cas"
    made.send(ev.WorkEnded(made.worker))
    assert not made.posts(CloseLease)


def test_what_is_remembered_has_an_end(monkeypatch):
    monkeypatch.setattr(sending, "AWAY_MAX", 1)
    provider = Provider(cpu_milli=4000)
    for caller, lease in (("cas", "l1"), ("dan", "l2")):
        pool, worker = provider.ready(lease, caller=caller)
        provider.send(ev.WorkEnded(worker))
        provider.send(ev.PoolGone(pool))
    provider.ask("l3", caller="cas")
    assert provider.posts(LeaseGranted)
    provider.ask("l4", caller="dan")
    assert provider.posts(LeaseRefused)
