"""`potluck mesh status`: who does what on which machine, and who waits; told to those alone who may know."""

import json

import pytest
from tests.e2e import sample
from tests.e2e.mesh import Node, run_cli, wait_until

from potluck import calls


@pytest.fixture(autouse=True)
def fresh_connection(monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)


def told(node):
    done = run_cli(node, "mesh", "status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_members_see_who_uses_what_and_who_waits(mesh, use_node):
    run_cli(Node(mesh.folder, "ann"), "mesh", "create", "lab", "--name", "ann")
    ann = mesh.caller("ann")
    token = run_cli(ann, "mesh", "invite", "--uses", "2").stdout
    for name in ("bob", "cas"):
        assert run_cli(Node(mesh.folder, name), "join", "--name", name, stdin=token).returncode == 0
    mesh.provider("bob")
    cas = mesh.caller("cas")
    wait_until(lambda: [peer.name for peer in cas.status().peers if peer.slots_free] == ["bob"], "finding bob")
    use_node(ann)
    with sample.app.run():
        call = sample.sleep.spawn(3.0)
        wait_until(lambda: any(each["doings"]["workers"] for each in told(cas)["nodes"]), "seeing the worker")
        # The machine's one CPU is taken: cas asks in vain.
        waiting = cas.client()
        done = run_cli(cas, "mesh", "status")
        assert "bob" in done.stdout
        assert "sleep" in done.stdout
        assert "ann" in done.stdout
        waiting.close()
        assert call.get() == 3.0
    wait_until(lambda: told(cas)["nodes"][0]["cpu_free_milli"] == 1000, "its being free again")


def test_strangers_are_not_told(mesh, use_node):
    caller, provider = mesh.caller(), mesh.provider("bob")
    wait_until(lambda: [peer.name for peer in caller.status().peers] == ["bob"], "finding bob")
    (node,) = told(caller)["nodes"]
    assert "members of its lab alone" in node["doings"]["problem"]
    # Its own it sees.
    (own,) = told(provider)["nodes"]
    assert (own["name"], own["doings"]["state"]) == ("bob", "open")
