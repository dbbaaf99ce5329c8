"""Lines, cuts, relays and gossip between simulated nodes."""

import random

import pytest

from potluck_netsim.faults import Faults
from potluck_netsim.network import Cut
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.sites import CITIES, LAN, MBIT, ONE_WAY_US, Line, Site, draw_home
from potluck_netsim.volunteers import Volunteers
from potluck_netsim.world import PromiseBroken
from potluck_node.core.policy import PolicyCore

CALM = Faults(
    deaths_per_hour=0, freezes_per_hour=0, pauses_per_hour=0, gossip_lost_milli=0, latency_min_us=1000,
    latency_max_us=1000,
)  # fmt: skip


@pytest.fixture
def lab():
    made = Lab(Options(3, nodes=6, minutes=1, faults=CALM))
    made.world.run(made.world.now_us + 2_000_000)
    return made


def heard(lab, node):
    """Who is fresh to somebody that begins to listen."""
    now_us = lab.world.now_us
    return {
        word.voice.name
        for word in lab.network.gossip.listen(node, now_us).take(now_us)
        if word.offer.expires_us > now_us
    }


def test_who_listens_late_hears_what_was_told_before(lab):
    one = lab.nodes[1]
    assert heard(lab, one) == {node.name for node in lab.nodes if node.provider} - {one.name}


def test_a_cut_keeps_offers_from_the_others_and_only_one_way_if_so_said(lab):
    cut = lab.nodes[0]
    lab.network.cut(frozenset([cut.peer]), 600_000_000, one_way=True)
    lab.world.run(lab.world.now_us + 30_000_000)
    assert cut.name not in heard(lab, lab.nodes[1])
    assert heard(lab, cut)


def test_a_cut_blocks_both_ways_or_one():
    side = frozenset("a")
    both, one = Cut(side, False, 5, 9), Cut(side, True, 5, 9)
    assert [both.blocks(*way, 5) for way in ("ab", "ba", "bc")] == [True, True, False]
    assert [one.blocks(*way, 5) for way in ("ab", "ba", "bc")] == [True, False, False]
    assert not both.blocks("a", "b", 9)


def test_a_word_is_lost_for_the_same_nodes_whenever_they_listen():
    lossy = Lab(Options(3, nodes=40, minutes=1, faults=Faults(gossip_lost_milli=500, deaths_per_hour=0)))
    lossy.world.run(lossy.world.now_us + 1_000_000)
    gossip = lossy.network.gossip
    early, late = (gossip.listen(lossy.nodes[1], lossy.world.now_us).coming for _ in range(2))
    assert early == late
    assert 0 < len({word.voice.peer for _, word in early}) < len(lossy.nodes) - 1


def test_a_line_carries_one_message_after_the_other(lab):
    one, other = lab.nodes[:2]
    one.site = Site(0, Line("slow", up=MBIT, down=MBIT))
    other.site = Site(3)
    before_us = lab.world.now_us
    end = lab.network.open(one, other.peer, (object, object), lambda end: None)
    first, second = (lab.network._arrival_us(end, other, 10 * MBIT) - before_us for _ in range(2))
    assert 10_000_000 <= first <= 10_000_000 + 2 * ONE_WAY_US[0][3]
    assert second - first > 9_000_000


def test_two_behind_closed_nats_meet_at_a_relay_and_part_when_it_dies(lab):
    one, other, relay = lab.nodes[:3]
    for node in lab.nodes:
        node.site = Site(0, LAN.line, "open" if node is relay else "closed")
    ends = []
    end = lab.network.open(one, other.peer, (object, object), lambda end: None)
    end.on_end = ends.append
    assert end.via is relay
    relay.die(unplugged=False)
    assert ends == ["the relay is gone"]


def test_homes_are_all_over_the_world():
    homes = [draw_home(random.Random(seed)) for seed in range(300)]
    assert {home.city for home in homes} == set(range(len(CITIES)))
    assert {home.nat for home in homes} == {"open", "punchable", "closed"}
    assert {home.line.name for home in homes} == {"cable", "fibre", "dsl", "campus"}


@pytest.mark.parametrize("seed", range(3))
def test_volunteers_keep_their_promises_for_some_hours(seed):
    report = Volunteers(Options(seed, nodes=30, minutes=240)).run()
    assert report.results > 100


def test_an_owner_whose_policy_sleeps_is_found(monkeypatch):
    monkeypatch.setattr(PolicyCore, "see", lambda core, facts, now_us: ())
    with pytest.raises(PromiseBroken, match="the owner gets the machine back"):
        Volunteers(Options(1, nodes=30, minutes=1440)).run()
