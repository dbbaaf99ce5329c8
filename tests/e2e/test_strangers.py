"""An open mesh on which one provider lies and another one bills too much: both are found out."""

import asyncio
import json

import pytest
from tests.e2e import verify_sample as sample
from tests.e2e.mesh import Mesh, Node, run_cli, wait_until

import potluck
from potluck import calls
from potluck_ledger.entries import Dispute, Receipt
from potluck_ledger.journal import verify


class LyingNode(Node):
    module = "tests.e2e.lying_node"


class GreedyNode(Node):
    module = "tests.e2e.greedy_node"


@pytest.fixture(scope="module")
def open_mesh(tmp_path_factory):
    """A caller that trusts nobody, two honest providers, one that lies, and one that bills too much."""
    made = Mesh(tmp_path_factory.mktemp("open"))
    try:
        caller = made.caller()
        made.provider("ann")
        made.provider("dan")
        for kind, name in ((LyingNode, "bob"), (GreedyNode, "eve")):
            flags = ("--without-limits", "--cpus", "1", "--memory-mib", "1024", "--bootstrap", caller.address)
            made.nodes.append(kind(made.folder, name, *flags).start())
        wait_until(lambda: len(caller.status().peers) == 4, "finding all providers")
        yield made
    finally:
        made.stop()


@pytest.fixture
def caller(open_mesh, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    return use_node(open_mesh.nodes[0])


def peers(caller):
    """What `potluck mesh peers` says, by name."""
    shown = run_cli(caller, "mesh", "peers", "--json")
    assert shown.returncode == 0, shown.stderr
    return {each["name"]: each for each in json.loads(shown.stdout)["peers"]}


def test_a_lie_never_arrives_and_the_liar_is_banned_and_named(open_mesh, caller):
    with sample.app.run(show_progress=False):
        assert list(sample.square.spawn_map(range(3)).iter()) == [0, 1, 4]

        def is_found():
            assert list(sample.square.map(range(16))) == [x * x for x in range(16)]
            return peers(caller)["bob"]["banned_us"]

        wait_until(is_found, "finding the liar")
    found = peers(caller)
    assert found["bob"]["level"] == "stranger"
    assert "lost 2 quorums" in found["bob"]["banned_why"]
    assert found["bob"]["score"] < 500 < found["ann"]["score"]
    assert found["ann"]["wrong"] == found["dan"]["wrong"] == 0
    assert "bob" in run_cli(caller, "mesh", "peers").stdout
    kept = json.loads(run_cli(caller, "mesh", "evidence", "bob", "--json").stdout)["evidence"]
    liar = open_mesh.nodes[3].status().peer
    against = [vote for each in kept for vote in each["votes"] if (vote["peer"], vote["verdict"]) == (liar, "wrong")]
    assert len(against) >= 2
    assert "wrong" in run_cli(caller, "mesh", "evidence", "bob").stdout

    # What it ran is billed, and the evidence names the lease.
    def billed():
        entries = [entry.content for entry in verify(*caller.journal())]
        return {entry.lease for entry in entries if isinstance(entry, Receipt)} >= {vote["lease"] for vote in against}

    wait_until(billed, "the liar's receipts")
    check_what_outlives_a_restart(open_mesh, caller)


def check_what_outlives_a_restart(open_mesh, caller):
    caller.stop()
    flags = (*caller.flags, "--bootstrap", open_mesh.nodes[1].address)
    open_mesh.nodes[0] = again = Node(open_mesh.folder, "cas", *flags).start()
    wait_until(lambda: "bob" in peers(again), "hearing from the liar")
    assert peers(again)["bob"]["banned_us"]


def test_who_bills_too_much_gets_no_signature(open_mesh, caller):
    greedy = open_mesh.nodes[4].status().peer

    def refused():
        # With the app all leases end, and their receipts are written.
        with sample.app.run(show_progress=False):
            list(sample.square.map(range(16)))
        return peers(caller)["eve"]["wrong"]

    wait_until(refused, "refusing a receipt")
    assert peers(caller)["eve"]["score"] < peers(caller)["ann"]["score"]
    entries = [entry.content for entry in verify(*caller.journal())]
    assert not any(isinstance(each, Receipt) and each.provider == greedy for each in entries)
    assert not any(isinstance(each, Dispute) and each.provider != greedy for each in entries)


async def with_asyncio():
    """The program judges there, too."""
    found = [abs(await sample.about.remote.aio(5.0) - 5.0) < 1]
    return found + [each async for each in sample.root.map.aio([9.0, 25.0])]


def test_ways_to_verify(caller):
    with sample.app.run(show_progress=False):
        assert sample.root.remote(9.0) == 3.0
        assert abs(sample.about.remote(5.0) - 5.0) < 1
        # Nobody but this program can compare these.
        assert sample.root.spawn(16.0).get() == 4.0
        assert abs(sample.about.spawn(5.0).get() - 5.0) < 1
        with pytest.raises(potluck.Error, match="could not be verified"):
            sample.noise.remote()
        assert list(sample.tested.map(range(4))) == [0, 1, 4, 9]
        assert list(sample.Doubler().double.map(range(3))) == [[0], [2], [4]]
        assert asyncio.run(with_asyncio()) == [True, 3.0, 5.0]
    kinds = {each["kind"] for each in json.loads(run_cli(caller, "mesh", "evidence", "--json").stdout)["evidence"]}
    assert {"check", "quorum", "canary"} <= kinds
