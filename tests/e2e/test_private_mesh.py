"""A private mesh: founded, joined by one token, used, and closed to everybody else."""

import json

import pytest
from tests.e2e import sample
from tests.e2e.mesh import Node, run_cli, wait_until

from potluck import calls


def cli(node, *arguments, stdin="", fails=""):
    done = run_cli(node, *arguments, stdin=stdin)
    assert (done.returncode != 0) == bool(fails), done.stderr
    assert fails in done.stderr
    return done.stdout


def names(node):
    return {each["name"] for each in json.loads(cli(node, "mesh", "members", "--json"))["members"]}


def peers(node):
    return {each.name for each in node.status().peers}


@pytest.fixture
def lab(mesh):
    """A founder that offers nothing, and a token of it for two."""
    cli(Node(mesh.folder, "ann"), "mesh", "create", "lab", "--name", "ann")
    ann = mesh.caller("ann")
    return ann, cli(ann, "mesh", "invite", "--uses", "2")


def joined(mesh, token, name):
    said = cli(Node(mesh.folder, name), "join", "--name", name, stdin=token)
    assert "a member of lab now: caller, provider" in said
    return mesh.provider(name)


def test_a_lab_pools_its_machines_loses_one_and_keeps_others_out(mesh, lab, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    ann, token = lab
    bob, eve = joined(mesh, token, "bob"), joined(mesh, token, "eve")
    wait_until(lambda: peers(ann) == {"bob", "eve"}, "finding both")
    assert names(ann) == {"ann", "bob", "eve"}
    # The token was for two.
    cli(Node(mesh.folder, "max"), "join", stdin=token, fails="used 2 times already")
    # A node without any certificate, in the same place, finds nobody and is seen by nobody.
    stranger = mesh.provider("stranger")
    use_node(ann)
    with sample.app.run():
        assert sample.add.remote(1, 2) == 3
        # Whoever is revoked goes at once, on all nodes; what it had is done elsewhere.
        results = sample.chat_slowly.map([f"t{number}" for number in range(20)])
        assert next(iter(results)) == "t0"
        assert "bob" in cli(ann, "mesh", "revoke", "bob", "--why", "lost its disk")
        assert list(results) == [f"t{number}" for number in range(1, 20)]
    wait_until(lambda: peers(ann) == {"eve"} and peers(bob) == set(), "bob being gone")
    wait_until(lambda: names(eve) == {"ann", "eve"}, "eve hearing of it")
    assert peers(stranger) == set()
    assert "stranger" not in peers(ann) | peers(eve)
    # For good: bob's own node knows it, too, and says so.
    for node in (eve, bob):
        node.stop()
    eve.start()
    wait_until(lambda: peers(ann) == {"eve"}, "eve coming back")
    assert "bob" not in names(ann) | names(eve)
    with pytest.raises(AssertionError, match="bob was revoked"):
        bob.start()
    cli(eve, "mesh", "invite", fails="no admin")
    cli(eve, "mesh", "revoke", "ann", fails="no admin")


def test_admins_are_named_and_roles_hold(mesh, lab, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    ann, _ = lab
    admin = cli(ann, "mesh", "invite", "--role", "admin", "--role", "provider")
    cli(Node(mesh.folder, "bob"), "join", "--name", "bob", stdin=admin)
    bob = mesh.provider("bob")
    wait_until(lambda: peers(ann) == {"bob"}, "finding bob")
    # Bob invites whoever he likes, and ann takes them for members.
    caller = cli(bob, "mesh", "invite", "--role", "caller", "--lasts", "30d")
    cli(Node(mesh.folder, "cas"), "join", "--name", "cas", stdin=caller)
    cas = mesh.provider("cas")
    wait_until(lambda: "bob" in peers(cas), "cas finding bob")
    assert "no provider" in cas.status().warning
    wait_until(lambda: names(ann) == {"ann", "bob", "cas"}, "ann meeting cas")
    use_node(cas)
    with sample.app.run():
        assert sample.add.remote(1, 2) == 3
    # Whoever bob invited goes with him.
    said = cli(ann, "mesh", "revoke", "bob")
    assert "bob" in said
    assert "cas" in said
    wait_until(lambda: peers(ann) == set(), "both being gone")
    assert names(ann) == {"ann"}


def test_what_cannot_be_is_said(mesh):
    alone = mesh.caller("alone")
    cli(alone, "mesh", "invite", fails="no private mesh")
    cli(alone, "mesh", "create", "lab", fails="potluck down")
    other = Node(mesh.folder, "other")
    cli(other, "join", "nonsense", fails="no token")
    cli(other, "join", "potluck1-AAAA", fails="damaged")
    cli(other, "mesh", "create", "two words", fails="not a name")
    cli(other, "mesh", "leave", fails="no private mesh")
    cli(other, "mesh", "create", "lab")
    cli(other, "mesh", "create", "lab", fails="mesh leave")
    assert "left lab" in cli(other, "mesh", "leave")
    cli(other, "mesh", "invite", "--expires", "never", fails="no length of time")


def audited(node, who):
    (found,) = [
        each
        for each in json.loads(cli(node, "ledger", "audit", who, "--json"))["journals"]
        if each["hidden"] or each["entries"]
    ]
    return found["entries"], found["hidden"], found["verified"]


def test_an_admin_reads_all_journals_and_others_what_is_about_them(mesh, lab, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    ann, token = lab
    bob = joined(mesh, token, "bob")
    cli(Node(mesh.folder, "eve"), "join", "--name", "eve", stdin=token)
    eve = mesh.caller("eve")
    wait_until(lambda: "bob" in peers(eve) & peers(ann), "finding the provider")
    use_node(eve)
    with sample.app.run():
        assert sample.add.remote(1, 2) == 3
    wait_until(lambda: bob.status().entries == 1, "the receipt")
    more = cli(Node(mesh.folder, "max"), "join", "--name", "max", stdin=cli(ann, "mesh", "invite"))
    assert "a member" in more
    other = mesh.caller("max")
    wait_until(lambda: "bob" in peers(other), "finding the provider")
    assert audited(ann, "bob") == (1, 0, True)
    assert audited(other, "bob") == (0, 1, True)
