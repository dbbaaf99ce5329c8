"""Tickets of lanes."""

from __future__ import annotations

from potluck_node.transport.lane.tickets import LANES_MAX, LANES_PER_PEER_MAX, TICKET_LIFE_S, Pass, Tickets

ANNE = Pass("anne", "/echo/1", b"certificate")


def test_a_ticket_is_good_once_and_soon():
    tickets = Tickets()
    assert tickets.issue(b"one", ANNE, 0.0)
    assert tickets.issue(b"two", ANNE, 1.0)
    assert tickets.redeem(b"one", TICKET_LIFE_S - 0.1) == ANNE
    assert tickets.redeem(b"one", TICKET_LIFE_S - 0.1) is None
    assert tickets.redeem(b"two", TICKET_LIFE_S + 1.0) is None
    assert tickets.redeem(b"never", 0.0) is None
    assert tickets.lanes == {"anne": 1}


def test_a_peer_has_its_share_and_gets_it_back():
    tickets = Tickets()
    for number in range(LANES_PER_PEER_MAX):
        assert tickets.issue(b"%d" % number, ANNE, 0.0)
    assert not tickets.issue(b"more", ANNE, 0.0)
    assert tickets.issue(b"other", Pass("bob", "/echo/1", b""), 0.0)
    assert tickets.redeem(b"0", 1.0)
    assert not tickets.issue(b"more", ANNE, 1.0)
    tickets.ended("anne")
    assert tickets.issue(b"more", ANNE, 1.0)
    assert tickets.issue(b"later", ANNE, TICKET_LIFE_S + 2.0)


def test_all_together_have_a_limit():
    tickets = Tickets()
    given = [tickets.issue(b"%d" % number, Pass(f"peer {number}", "", b""), 0.0) for number in range(LANES_MAX + 1)]
    assert given == [True] * LANES_MAX + [False]


def test_lanes_that_ended_are_forgotten():
    tickets = Tickets()
    tickets.issue(b"one", ANNE, 0.0)
    tickets.redeem(b"one", 0.0)
    tickets.ended("anne")
    assert not tickets.lanes
