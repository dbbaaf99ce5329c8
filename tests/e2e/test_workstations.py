"""A lab's workstations, two of them behind routers: pooled by one token each, used together; one goes, one comes, one
is thrown out."""

import json

import pytest
from tests.e2e import nat, sample
from tests.e2e.mesh import run_cli, wait_until
from tests.e2e.nat import Internet, PlacedNode

from potluck import calls

pytestmark = pytest.mark.skipif(bool(nat.why_not()), reason=nat.why_not() or "there are namespaces")


def cli(node, *arguments, stdin=""):
    done = run_cli(node, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def peers(node):
    return {each.name for each in node.status().peers if each.state == "open"}


def names(node):
    return {each["name"] for each in json.loads(cli(node, "mesh", "members", "--json"))["members"]}


def works(node):
    return any(worker.state == "running" for worker in node.status().workers)


class Lab:
    """Starts workstations. The first one founds the mesh and gives a token to each further one."""

    def __init__(self, folder):
        self.folder, self.nodes = folder, []

    def pool(self, place, name):
        node = PlacedNode(self.folder, place, name, "--without-limits", "--cpus", "1", "--memory-mib", "1024")
        if self.nodes:
            token = cli(self.nodes[0], "mesh", "invite")
            assert "a member of lab now" in cli(node, "join", "--name", name, stdin=token)
        else:
            cli(node, "mesh", "create", "lab", "--name", name)
        self.nodes.append(node)
        return node.start()


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    for node in made.nodes:
        node.stop()


def test_three_workstations_are_one_lab(lab, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    with Internet() as net:
        homes = net.router("restricted"), net.router("symmetric"), net.router("restricted")
        ann = lab.pool(net.host("ann"), "ann")
        bob = lab.pool(net.behind(homes[0], "bob"), "bob")
        eve = lab.pool(net.behind(homes[1], "eve"), "eve")
        wait_until(lambda: peers(bob) == {"ann", "eve"}, "bob finding both")
        use_node(bob)
        with sample.app.run(show_progress=False):
            assert sample.slow_square.remote(2) == 4
            # Together.
            results = sample.slow_square.map(range(200))
            seen = [next(results)]
            wait_until(lambda: works(ann) and works(bob) and works(eve), "all three at work")
            # One is lost, without a word: its cable is pulled.
            eve.place.unplug()
            # One comes, behind a router of its own.
            max_ = lab.pool(net.behind(homes[2], "max"), "max")
            wait_until(lambda: "max" in peers(bob), "bob finding max")
            seen += list(results)
            assert seen == [x * x for x in range(200)]
            results = sample.slow_square.map(range(200))
            seen = [next(results)]
            wait_until(lambda: works(max_), "max at work")
            # One is thrown out, in the middle of it.
            assert "max" in cli(ann, "mesh", "revoke", "max")
            seen += list(results)
            assert seen == [x * x for x in range(200)]
        wait_until(lambda: "max" not in peers(ann) | peers(bob) and peers(max_) == set(), "max being gone")
        assert names(bob) >= {"ann", "bob"}
        assert "max" not in names(bob) | names(ann)
        # Plugged in again, the lost one finds back, and hears who is gone.
        eve.place.plug(f"{homes[1].inside}.1")
        wait_until(lambda: "eve" in peers(bob), "eve coming back")
        wait_until(lambda: "max" not in names(eve), "eve hearing of it")
