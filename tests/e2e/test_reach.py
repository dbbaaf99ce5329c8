"""Nodes behind routers are called: in network namespaces with real NAT rules, over real connections."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e import nat, sample
from tests.e2e.mesh import run_cli, wait_until
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


def provider(nodes, place, name, *flags):
    return nodes(place, name, "--cpus", "1", "--memory-mib", "1024", *flags)


def peers(node):
    return {each.name for each in node.status().peers}


def works(node):
    return any(worker.state == "running" for worker in node.status().workers)


def said(node, *words):
    text = node.log.read_text()
    return all(word in text for word in words)


def call_from(node, use_node):
    use_node(node)
    calls._connection = None
    with sample.app.run():
        assert sample.add.remote(1, 2) == 3


# What the doctor says of those behind such a router.
KINDS = {"restricted": "(cone)", "symmetric": "(symmetric)", "cone": "through the router in front of it, at 45.9.0.4"}


def doctor(node):
    found = json.loads(run_cli(node, "doctor", "--json").stdout)
    assert any(each["says"].startswith("It sends ") for each in found if each["about"] == "upload")
    return next(each["says"] for each in found if each["about"] == "reach")


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
    # It has the image then: a relay would take a minute for that.
    call_from(bob, use_node)
    call_from(ann, use_node)
    if theirs != ours:
        assert KINDS[ours] in doctor(ann)
        assert KINDS[theirs] in doctor(bob)
    assert said(ann, way)
    assert said(ann, "through the relay") == (way == "through the relay")


def test_who_can_be_reached_is_dialled_by_whom_it_calls(internet, nodes, use_node):
    """Connection reversal; nobody has a hole to punch, and the relay carries a few words alone."""
    nodes(internet.host("boot"), "boot", "--no-offer")
    ann = nodes(internet.host("ann"), "ann", "--no-offer")
    router = internet.router("symmetric")
    # Or the DHT of one would dial the other before there is any need.
    ann.place.refuse(router.address)
    bob = provider(nodes, internet.behind(router, "bob"), "bob")
    wait_until(lambda: said(ann, "others see this node as open"), "ann looking at itself")
    wait_until(lambda: said(bob, "others see this node as"), "bob looking at itself")
    wait_until(lambda: peers(ann) >= {"bob"}, "ann finding bob")
    use_node(ann)
    with sample.app.run(), ThreadPoolExecutor() as pool:
        answer = pool.submit(sample.add.remote, 1, 2)
        wait_until(lambda: said(bob, "asks to be dialled"), "the knock")
        ann.place.refuse("")
        assert answer.result() == 3
    assert said(bob, f"is reached at /ip4/{ann.place.address}")
    assert not said(ann, "through the relay")


def test_a_router_that_maps_ports_is_asked_and_told_when_that_is_over(internet, nodes, use_node, tmp_path):
    if shutil.which("miniupnpd") is None:
        pytest.skip("miniupnpd is not installed")
    nodes(internet.host("boot"), "boot", "--no-offer")
    router = internet.router("restricted")
    daemon = internet.gives_ports(router, tmp_path)
    try:
        ann = nodes(internet.behind(internet.router("symmetric"), "ann"), "ann", "--no-offer")
        bob = provider(nodes, internet.behind(router, "bob"), "bob", "--upnp")
        wait_until(lambda: said(bob, "others see this node as mapped"), "the router letting others in")
        assert f"/ip4/{router.address}/tcp/4001/p2p/" in " ".join(bob.status().addresses)
        assert "dnat ip to" in router.run("nft", "list", "ruleset")
        wait_until(lambda: peers(ann) >= {"bob"}, "ann finding bob")
        call_from(ann, use_node)
        assert said(ann, f"is reached at /ip4/{router.address}/tcp/4001")
        bob.stop()
        assert "dnat ip to" not in router.run("nft", "list", "ruleset")
    finally:
        daemon.terminate()
        daemon.wait()


def test_a_map_survives_a_broken_cable_lost_packets_and_a_move(internet, nodes, use_node):
    nodes(internet.host("boot"), "boot", "--no-offer")
    first, second = internet.router("restricted"), internet.router("restricted")
    ann = nodes(internet.behind(internet.router("restricted"), "ann"), "ann", "--no-offer")
    bob = provider(nodes, internet.behind(first, "bob"), "bob")
    cas = provider(nodes, internet.behind(second, "cas"), "cas")
    wait_until(lambda: peers(ann) >= {"bob", "cas"}, "ann finding both")
    use_node(ann)
    # From here on one packet of twenty is lost, each way.
    for each in (ann, bob, cas):
        each.place.lose(5)
    with sample.app.run(show_progress=False):
        assert list(sample.slow_square.map(range(10))) == [x * x for x in range(10)]
        results = sample.slow_square.map(range(120))
        seen = [next(results)]
        wait_until(lambda: works(bob) and works(cas), "both at work")
        # Somebody carries cas to another network: the node keeps running, and is somewhere else.
        internet.move(cas.place, first)
        wait_until(lambda: said(cas, "the addresses of this machine changed"), "cas noticing")
        # The other one is cut off, and comes back.
        bob.place.unplug()
        wait_until(lambda: works(cas), "cas at work again")
        bob.place.plug(f"{first.inside}.1")
        seen += list(results)
        assert seen == [x * x for x in range(120)]
        wait_until(lambda: peers(ann) >= {"bob", "cas"}, "both being back")
        assert any(cas.place.address in address for address in cas.status().addresses)
        # The caller's own machine is carried away, too.
        results = sample.slow_square.map(range(80))
        seen = [next(results)]
        internet.move(ann.place, second)
        seen += list(results)
        assert seen == [x * x for x in range(80)]
    assert said(ann, "the addresses of this machine changed")
