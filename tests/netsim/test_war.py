"""Cheats, forks and washers at once, with crashes around writes: what each costs is bounded, and an audit names it."""

import pytest
from tests.netsim.broken import first_broken

from potluck_ledger import audit
from potluck_ledger.sync import Follower
from potluck_netsim.scenarios import Options
from potluck_netsim.war import CheatsAreNamed, War


def mesh(seed):
    return War(Options(seed, 8, 0.7, War.faults_of(seed)))


@pytest.mark.parametrize("seed", range(3))
def test_what_cheats_cost_is_bounded_and_named(seed):
    report = mesh(seed).run()
    assert report.results > 20
    assert all(goal.met for goal in report.goals), report


def longer(seed):
    return War(Options(seed, 8, 1.5, War.faults_of(seed)))


def breaks(seeds=range(100)):
    return first_broken(mesh, seeds)


def test_an_audit_that_does_not_look_names_nobody(monkeypatch):
    monkeypatch.setattr(audit, "_disputes", lambda *given: [])
    monkeypatch.setattr(audit, "_disagreements", lambda *given: [])
    # It takes a while until a cheat has cost more than a trifle.
    assert CheatsAreNamed.promise in first_broken(longer, range(2, 100))


def test_nodes_that_believe_whatever_they_hear_do_not_know_who_forks(monkeypatch):
    monkeypatch.setattr(Follower, "_convict", lambda follower, owner, one, other: [])
    assert "does not know what" in breaks()
