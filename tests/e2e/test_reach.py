"""Nodes behind routers are called: in network namespaces with real NAT rules, over real connections."""

import pytest
from tests.e2e import nat, sample
from tests.e2e.mesh import wait_until
from tests.e2e.nat import Internet, PlacedNode

from potluck import calls

pytestmark = pytest.mark.skipif(bool(nat.why_not()), reason=nat.why_not() or "there are namespaces")


@pytest.fixture
def internet():
    with Internet() as made:
        yield made


@pytest.fixture
def nodes(internet, tmp_path, monkeypatch):
    """Starts nodes that know the first one of them, and stops them all."""
    monkeypatch.setattr(calls, "_connection", None)
    made: list[PlacedNode] = []

    def start(place, name, *flags):
        bootstrap = ("--bootstrap", made[0].address) if made else ()
        made.append(PlacedNode(tmp_path, place, name, "--without-limits", *bootstrap, *flags))
        made[-1].start()
        return made[-1]

    yield start
    for node in made:
        node.stop()


def provider(nodes, place, name):
    return nodes(place, name, "--cpus", "1", "--memory-mib", "1024")


def peers(node):
    return {each.name for each in node.status().peers}


def said(node, *words):
    text = node.log.read_text()
    return all(word in text for word in words)


@pytest.mark.parametrize(
    ("ours", "theirs", "way"),
    [
        ("restricted", "restricted", "by a hole punch"),
        ("symmetric", "symmetric", "through the relay"),
        ("symmetric", "restricted", "through the relay"),
        ("restricted", "cone", "is reached at /ip4/45.9.0.4/tcp/4001"),
    ],
)
def test_a_call_gets_through_two_routers(internet, nodes, use_node, ours, theirs, way):
    nodes(internet.host("boot"), "boot", "--no-offer")
    nodes(internet.host("second"), "second", "--no-offer")
    ann = nodes(internet.behind(internet.router(ours), "ann"), "ann", "--no-offer")
    bob = provider(nodes, internet.behind(internet.router(theirs), "bob"), "bob")
    wait_until(lambda: said(bob, "others see this node as"), "bob looking at itself")
    wait_until(lambda: peers(ann) >= {"bob"}, "ann finding bob")
    use_node(ann)
    with sample.app.run():
        assert sample.add.remote(1, 2) == 3
    assert said(ann, way)
