"""Nodes that keep two journals, among honest ones: all of these find out, and witnesses sign one history of each; and
each defence is what prevents the opposite."""

import pytest
from tests.netsim.broken import first_broken

from potluck_ledger.sync import Follower
from potluck_ledger.witness import Asked
from potluck_netsim.faults import Faults
from potluck_netsim.forks import Forks
from potluck_netsim.journals import SimJournals
from potluck_netsim.scenarios import Options

CALM = Faults(deaths_per_hour=0, freezes_per_hour=0, pauses_per_hour=0)
ROUGH = Faults(
    deaths_per_hour=60, freezes_per_hour=30, pauses_per_hour=30, latency_max_us=300_000, gossip_lost_milli=200
)


def lab(seed, faults=CALM):
    return Forks(Options(seed, nodes=8, minutes=2, faults=faults))


@pytest.mark.parametrize("faults", [CALM, ROUGH], ids=["calm", "rough"])
@pytest.mark.parametrize("seed", range(4))
def test_who_forks_is_banned_by_all_and_no_witness_signs_a_second_head(seed, faults):
    mesh = lab(seed, faults)
    assert mesh.run().results > 20
    convicted = mesh.convicted()
    assert convicted
    assert set(convicted) <= {"node-03", "node-07"}
    for node in mesh.nodes:
        banned = {other.name for other in mesh.nodes if other.peer in node.book.banned}
        assert node.name in ("node-03", "node-07") or banned == set(convicted)
    assert mesh.witnesses.witnessed
    # Where much fails, who forks may be known before it asks.
    assert mesh.witnesses.refused or faults is ROUGH


def breaks(seeds=range(4)):
    return first_broken(lab, seeds)


def test_nodes_that_believe_whatever_they_hear_find_nobody(monkeypatch):
    monkeypatch.setattr(Follower, "_convict", lambda follower, owner, one, other: [])
    assert "does not know what" in breaks()


def test_who_hears_of_one_history_alone_finds_nothing(monkeypatch):
    """Where gossip is not carried on, and each half of the mesh hears of one history alone."""
    gossip = SimJournals._gossip

    def own(journals, message, peers):
        if len(peers) == 1:
            gossip(journals, message, peers)

    monkeypatch.setattr(SimJournals, "_gossip", own)
    assert "does not know what" in breaks()


def test_witnesses_that_do_not_look_sign_two(monkeypatch):
    monkeypatch.setattr(Asked, "__init__", trusting)
    monkeypatch.setattr(Asked, "is_shown", True)
    assert "witnesses sign one history" in breaks()


def trusting(asked, data, owner, last):
    from potluck_ledger.entries import Checkpoint, read

    asked.checkpoint = read(data, Checkpoint, owner)
