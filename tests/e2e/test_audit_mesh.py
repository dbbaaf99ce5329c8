"""An audit over a real mesh: journals of peers are fetched and verified, and who is gone is named."""

import json

from tests.e2e import sample
from tests.e2e.mesh import run_cli, wait_until

from potluck_ledger.keys import load_or_create


def audited(node, *arguments):
    found = run_cli(node, "ledger", "audit", *arguments, "--json")
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)
    return {each["owner"]: each for each in facts["journals"]}, facts["findings"]


def test_a_mesh_is_audited_and_who_is_gone_is_named(mesh, use_node):
    (mesh.folder / "cas").mkdir(mode=0o711)
    boss = load_or_create(mesh.folder / "cas" / "node.key").peer
    flags = ("--ledger-admins", boss)
    caller = mesh.caller("cas", *flags)
    nodes = {name: mesh.provider(name, *flags) for name in ("ann", "bob")}
    peers = {name: node.status().peer for name, node in nodes.items()}
    wait_until(lambda: len(caller.status().peers) == 2, "finding both providers")
    assert run_cli(caller, "ledger", "grant", boss, "--gpu-seconds", "100").returncode == 0
    for node in nodes.values():
        told = lambda node=node: "100" in run_cli(node, "ledger", "grants").stdout  # noqa: E731
        wait_until(told, "the grant")
    use_node(caller)
    with sample.app.run(show_progress=False):
        assert sample.add.remote(1, 1) == 2
    # The grant, and the receipt; and that of one of the two.
    wait_until(lambda: caller.status().entries == 2, "the caller's receipt")
    wait_until(lambda: sum(node.status().entries for node in nodes.values()) == 1, "the provider's")

    journals, findings = audited(caller, "--mesh")
    assert {owner: each["entries"] for owner, each in journals.items()} == {
        boss: 2, **{peers[name]: node.status().entries for name, node in nodes.items()}
    }  # fmt: skip
    assert all(each["verified"] for each in journals.values())
    assert findings == []
    by_name, _ = audited(caller, "ann")
    assert by_name.keys() == {boss, peers["ann"]}
    assert "Nothing to say of 3 journals" in run_cli(caller, "ledger", "audit", "--mesh").stdout
    assert "no such file" in run_cli(caller, "ledger", "audit", "nobody").stderr

    # Its journal was heard of, so that it is missed.
    (gone,) = [name for name, node in nodes.items() if node.status().entries]
    (left,) = nodes.keys() - {gone}
    heard = lambda: [each.entries for each in caller.status().peers if each.name == gone] == [1]  # noqa: E731
    wait_until(heard, "its head being heard")
    nodes[gone].kill()
    journals, _ = audited(caller, "--mesh")
    assert journals[peers[left]]["verified"]
    assert "does not answer" in journals[peers[gone]]["problem"]
