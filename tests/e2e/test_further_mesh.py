"""Two meshes on one machine: nodes that know nothing of each other, and together lend no more than one would."""

import json

import pytest
from tests.e2e import sample
from tests.e2e.mesh import Node, run_cli, wait_until

from potluck import calls


@pytest.fixture
def fresh_connection(monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)


def provider(home, name, *flags):
    return Node(home, name, "--without-limits", "--cpus", "1", "--memory-mib", "1024", *flags)


def test_a_machine_is_on_two_meshes_and_is_lent_once(tmp_path, use_node, fresh_connection):
    first, further = provider(tmp_path, "both"), provider(tmp_path / "both" / "meshes", "vision")
    done = run_cli(first, "--on", "vision", "mesh", "create", "eyes")
    assert done.returncode == 0, done.stderr
    nodes = [first.start(), further.start()]
    try:
        caller = Node(tmp_path, "cas", "--no-offer", "--bootstrap", first.address).start()
        nodes.append(caller)
        wait_until(lambda: [peer.name for peer in caller.status().peers] == ["both"], "finding the first")
        # Kept apart: another key, another journal, and who is on one mesh sees nothing of the other.
        listed = json.loads(run_cli(first, "mesh", "list", "--json").stdout)
        assert [(each["on"], each["mesh"], each["peer"]) for each in listed] == [
            ("", "local", first.status().peer),
            ("vision", "eyes", further.status().peer),
        ]
        assert first.status().peer != further.status().peer
        assert further.status().peers == ()
        # The machine lends one CPU, whoever asks.
        use_node(caller)
        with sample.app.run():
            call = sample.chat_slowly.spawn("x")
            wait_until(lambda: further.status().cpu_free_milli == 0, "the other node seeing that")
            assert call.get() == "x"
        first.stop()
        wait_until(lambda: further.status().cpu_free_milli == 1000, "all of it being free again")
    finally:
        for node in reversed(nodes):
            node.stop()


def test_what_is_no_name_is_said(mesh):
    node = Node(mesh.folder, "ann")
    done = run_cli(node, "--on", "../eve", "status")
    assert "not a name for one of your meshes" in done.stderr
    assert done.returncode == 1
