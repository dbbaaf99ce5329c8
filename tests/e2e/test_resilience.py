"""Calls go on: nodes vanish, sleep and come back, the bootstrap is down, two have one key."""

import os
import shutil
import signal

import pytest
from tests.e2e import sample
from tests.e2e.mesh import Node, wait_until

from potluck import calls


@pytest.fixture(autouse=True)
def fresh_connection(monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)


def names(node):
    return {peer.name for peer in node.status().peers if peer.state == "open"}


def is_busy(node):
    return any(worker.state == "running" for worker in node.status().workers)


def test_a_third_of_the_nodes_is_killed_with_the_one_that_all_joined_by(mesh, use_node):
    first = mesh.provider("first")
    caller = mesh.caller()
    providers = [first, *(mesh.provider(f"p{number}") for number in range(6))]
    wait_until(lambda: len(names(caller)) == 7, "finding all providers")
    use_node(caller)
    with sample.app.run(show_progress=False):
        results = sample.slow_square.map(range(60))
        seen = [next(results)]
        wait_until(lambda: sum(map(is_busy, providers)) >= 4, "several at work")
        for node in providers[:2]:
            node.kill()
        seen += list(results)
    assert seen == [x * x for x in range(60)]
    # And on: those that are left know each other, and a node joins by any of them.
    late = Node(mesh.folder, "late", "--without-limits", "--cpus", "1", "--bootstrap", providers[3].address).start()
    mesh.nodes.append(late)
    wait_until(lambda: names(caller) >= {"p1", "p2", "p3", "p4", "p5", "late"}, "the late one")


def test_a_node_starts_while_its_bootstrap_is_down_and_joins_when_it_comes(mesh):
    first = mesh.provider("first")
    address = first.address
    first.kill()
    alone = Node(mesh.folder, "alone", "--no-offer", "--bootstrap", address).start()
    mesh.nodes.append(alone)
    assert names(alone) == set()
    port = address.split("/")[4]
    first.flags = (*first.flags, "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    first.start()
    wait_until(lambda: names(alone) == {"first"}, "joining")
    # For ever: it may go away and come again.
    first.kill()
    wait_until(lambda: names(alone) == set(), "its offer running out")
    first.start()
    wait_until(lambda: names(alone) == {"first"}, "joining again")


def test_a_machine_that_slept_is_used_again_and_its_inputs_were_done_meanwhile(mesh, use_node):
    caller, ann, bob = mesh.caller(), mesh.provider("ann"), mesh.provider("bob")
    wait_until(lambda: names(caller) == {"ann", "bob"}, "finding both")
    use_node(caller)
    with sample.app.run(show_progress=False):
        results = sample.slow_square.map(range(30))
        seen = [next(results)]
        wait_until(lambda: is_busy(bob), "bob at work")
        os.kill(bob.process.pid, signal.SIGSTOP)
        try:
            seen += list(results)
        finally:
            os.kill(bob.process.pid, signal.SIGCONT)
        assert seen == [x * x for x in range(30)]
        ann.kill()
        assert sample.add.remote(1, 2) == 3
    assert names(caller) >= {"bob"}


def test_two_nodes_with_one_key_do_not_stop_calls(mesh, use_node):
    """Somebody copied a data folder to a second machine."""
    caller, ann = mesh.caller(), mesh.provider("ann")
    wait_until(lambda: names(caller) == {"ann"}, "finding ann")
    twin_home = mesh.folder / "twin"
    twin_home.mkdir()
    shutil.copy(ann.home / "node.key", twin_home)
    twin = mesh.provider("twin")
    assert twin.status().peer == ann.status().peer
    bob = mesh.provider("bob")
    wait_until(lambda: "bob" in names(caller), "finding bob")
    use_node(caller)
    with sample.app.run(show_progress=False):
        assert list(sample.slow_square.map(range(20))) == [x * x for x in range(20)]
    assert bob.status().peer != twin.status().peer
