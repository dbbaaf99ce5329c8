"""A provider whose owner comes back: nothing new begins, what runs is told, and ends with its grace."""

import pytest
from tests.meshnode.core.test_provider import Provider

from potluck.wire import RemoteException
from potluck.wire.lease import CloseLease, Input, InputDone
from potluck.wire.worker import InputRaised
from potluck_node.core import provider_events as ev

WHY = "the owner returned"


@pytest.fixture
def made():
    """With a worker that runs one input, and room for more."""
    provider = Provider(cpu_milli=4000)
    provider.pool, provider.worker = provider.ready()
    return provider


def pause(made, own=False):
    made.send(ev.Paused(WHY, own=own))
    posts = made.posts(CloseLease)
    made.send(ev.GraceBegan(WHY, 30_000_000, own=own))
    return posts


def raised(made, kind="KeyboardInterrupt"):
    outcome = InputRaised(1, RemoteException(kind, "", ""))
    made.send(ev.OutcomeCame(made.pool, made.worker, outcome))
    return made.posts(InputDone)


def test_what_runs_is_told_once_and_nothing_new_begins(made):
    assert pause(made) == []
    assert made.only(ev.WarnWorker) == ev.WarnWorker(made.pool, made.worker, 30_000_000)
    made.send(ev.GraceBegan(WHY, 30_000_000, own=False))
    assert not made.all(ev.WarnWorker)
    made.send(ev.InputCame("l1", Input(2, 1, b"more")))
    assert not made.all(ev.Run)
    assert not made.all(ev.SpawnWorker)


def test_what_is_done_in_time_counts_and_the_lease_ends_with_what_waits(made):
    pause(made)
    made.send(ev.InputCame("l1", Input(2, 1, b"more")))
    made.succeed(made.pool, made.worker)
    done, waited = made.posts(InputDone)
    assert not done.lost
    assert (waited.input, waited.lost) == (2, WHY)
    assert made.posts(CloseLease) == [CloseLease(WHY)]
    assert made.only(ev.StopWorker).worker == made.worker
    assert not made.all(ev.Run)


def test_who_saves_and_ends_runs_elsewhere(made):
    pause(made)
    (done,) = raised(made)
    assert (done.lost, done.yielded, done.exception) == (WHY, True, None)


def test_what_fails_by_itself_has_failed(made):
    pause(made)
    (done,) = raised(made, "ValueError")
    assert not done.lost
    assert done.exception.type_name == "ValueError"


def test_an_interrupt_that_nobody_asked_for_is_an_exception_like_others(made):
    (done,) = raised(made)
    assert done.exception.type_name == "KeyboardInterrupt"


def test_a_warned_worker_that_dies_has_lost_its_input(made):
    pause(made)
    made.send(ev.WorkerGone(made.pool, made.worker, "killed by signal 2"))
    assert [(done.lost, done.yielded) for done in made.posts(InputDone)] == [(WHY, True)]


def test_whoever_comes_and_goes_within_the_grace_changes_little(made):
    pause(made)
    made.send(ev.Resumed())
    assert made.only(ev.CalmWorker) == ev.CalmWorker(made.pool, made.worker)
    made.succeed(made.pool, made.worker)
    made.send(ev.InputCame("l1", Input(2, 1, b"more")))
    assert made.only(ev.Run).worker == made.worker


def test_whoever_goes_while_it_is_paused_lets_it_come_to_its_end(made):
    pause(made)
    made.send(ev.GraceSpared())
    assert made.only(ev.CalmWorker) == ev.CalmWorker(made.pool, made.worker)
    made.send(ev.InputCame("l1", Input(2, 1, b"more")))
    assert not made.all(ev.Run)
    made.succeed(made.pool, made.worker)
    assert [done.lost for done in made.posts(InputDone)] == ["", WHY]


def test_own_functions_are_told_only_where_all_is_stopped():
    provider = Provider(cpu_milli=4000)
    provider.ask(caller=provider.core._us)
    pool = provider.only(ev.PreparePool).pool
    provider.send(ev.PoolReady(pool))
    provider.send(ev.InputCame("l1", Input(1, 1, b"mine")))
    worker = provider.only(ev.SpawnWorker).worker
    provider.send(ev.WorkerUp(pool, worker))
    assert pause(provider) == []
    assert not provider.all(ev.WarnWorker)
    pause(provider, own=True)
    assert provider.only(ev.WarnWorker).worker == worker
