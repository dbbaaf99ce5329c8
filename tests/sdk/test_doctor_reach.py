"""What `potluck doctor` says of how a node is reached: which router it is behind, and one thing to do."""

import pytest

from potluck.cli.reach import findings
from potluck.wire.doctor import ReachReport, Upload


def say(kind, **facts):
    given = {"port": 4001, "connected": 3, "observers": 2, "relays": 2} | facts
    return list(findings(ReachReport(1, kind, **given)))


@pytest.mark.parametrize(
    ("kind", "state", "says", "fix"),
    [
        ("open", "good", "reach this node, at 45.9.0.1 port 4001. So say 2 peers.", ""),
        ("mapped", "good", "through the router in front of it, at 45.9.0.1 port 4001", ""),
        ("cone", "weak", "(cone)", "--upnp, or have the router pass TCP port 4001"),
        ("symmetric", "weak", "(symmetric)", "--upnp, or have the router pass TCP port 4001"),
        ("walled", "weak", "firewall", "sudo ufw allow 4001/tcp"),
        ("unknown", "weak", "No peer has looked", ""),
        ("of a newer version", "good", "No peer has looked", ""),
    ],
)
def test_each_router_has_its_words_and_its_fix(kind, state, says, fix):
    (found,) = say(kind, endpoints=(("45.9.0.1", 4001),) if kind in ("open", "mapped") else ())
    assert found.state == state
    assert says in found.says
    assert fix in found.fix
    assert bool(found.fix) == bool(fix)


def test_without_a_relay_a_hidden_node_cannot_be_reached():
    (found,) = say("cone", relays=0)
    assert found.state == "missing"
    assert "No relay" in found.means


def test_who_listens_for_itself_or_knows_nobody_is_told_what_to_do():
    assert "--listen /ip4/0.0.0.0/tcp/4001" in say("unknown", port=0)[0].fix
    assert "--bootstrap" in say("unknown", connected=0)[0].fix


def test_relayed_peers_and_the_way_out_are_said():
    found = say("open", relayed=1, upload=Upload("12D3KooWabcdefgh", 4 << 20, 2_000_000))
    assert "1 of 3 peers" in found[1].says
    assert found[2].says == "It sends 2.0 MiB/s: 4.0 MiB went to the peer …abcdefgh just now."
