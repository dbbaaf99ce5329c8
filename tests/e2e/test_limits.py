"""Strangers' functions do not run where nothing limits them, unless the owner says so; and a flood of prints ends."""

import os

import pytest
from tests.e2e import sample as printing
from tests.e2e import tier_sample as sample
from tests.e2e.mesh import Node, wait_until

from potluck.errors import NoPeerError, ResourceExceededError


class LimitlessNode(Node):
    module = "tests.e2e.limitless_node"


class QuietNode(Node):
    module = "tests.e2e.quiet_node"


@pytest.fixture
def limitless(mesh):
    def start(*flags):
        node = LimitlessNode(mesh.folder, "ann", "--bootstrap", mesh.nodes[0].address, *flags).start()
        mesh.nodes.append(node)
        return node

    return start


def test_a_machine_without_limits_runs_its_owners_functions_only(mesh, use_node, limitless):
    caller = mesh.caller()
    ann = limitless()
    assert "cannot limit memory and pids" in ann.status().warning
    wait_until(lambda: caller.status().peers, "finding the provider")
    assert [peer.note for peer in caller.status().peers] == ["offers nothing"]
    use_node(ann)
    with sample.app.run(show_progress=False):
        assert sample.plain.remote()[0] == os.uname().release
    use_node(caller)
    with sample.app.run(show_progress=False), pytest.raises(NoPeerError):
        sample.plain.remote()


def test_an_owner_may_let_strangers_in_all_the_same(mesh, use_node, limitless):
    caller = use_node(mesh.caller())
    ann = limitless("--without-limits")
    assert not ann.status().warning
    wait_until(lambda: caller.status().peers, "finding the provider")
    with sample.app.run(show_progress=False):
        assert sample.plain.remote()[0] == os.uname().release


def test_who_prints_too_much_is_ended_and_told(mesh, use_node, capsys):
    mesh.nodes.append(use_node(QuietNode(mesh.folder, "ann", "--without-limits").start()))
    with printing.app.run(show_progress=False):
        with pytest.raises(ResourceExceededError, match="printed more than 1 MiB"):
            printing.flood.remote()
        assert printing.add.remote(1) == 2
    shown = capsys.readouterr().out
    assert 1 << 19 < len(shown) < 4 << 20
