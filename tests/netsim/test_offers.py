"""Offers in a simulated mesh: heard soon, never used when they have expired, found among hostile nodes."""

import pytest

from potluck_netsim.offers import Mesh, OfferWorld, run
from potluck_node.core import bans, reputation

SMALL = {"nodes": 200, "minutes": 4.0}


def test_one_seed_gives_one_history():
    assert run(Mesh(seed=3, **SMALL)) == run(Mesh(seed=3, **SMALL))
    assert run(Mesh(seed=3, **SMALL)) != run(Mesh(seed=4, **SMALL))


def test_changes_are_heard_within_seconds_and_warm_peers_are_found():
    found = OfferWorld(Mesh(**SMALL)).run()
    assert found.lookups > 200
    assert found.expired == 0
    assert found.served / found.lookups >= 0.99
    # A change waits 0.2 s and goes a few hops.
    assert min(found.heard_ms + found.cold_ms) > 200
    assert max(found.heard_ms + found.cold_ms) < 10_000


def test_hostile_nodes_slow_a_lookup_down_and_bans_find_the_way(monkeypatch):
    hostile = Mesh(**SMALL, hostile_milli=300, lying_milli=1000)
    with_bans = run(hostile)
    # The same mesh, in which nobody remembers who refused, and who did what it said.
    monkeypatch.setattr(bans.Bans, "left_us", lambda self, peer, now_us: 0)
    monkeypatch.setattr(reputation.Reputation, "doubt", lambda self, peer, now_us: 1)
    without = run(hostile)
    assert with_bans["first_try"] > without["first_try"]
    assert with_bans["used_after_expiry"] == without["used_after_expiry"] == 0


@pytest.mark.parametrize("degree", [1])
def test_a_mesh_that_hangs_by_a_thread_shows_it(degree):
    """So the simulation can fail: with one neighbour each, nodes fall out of it."""
    found = OfferWorld(Mesh(**SMALL, degree=degree, session_us=30_000_000)).run()
    assert found.missed > 100
