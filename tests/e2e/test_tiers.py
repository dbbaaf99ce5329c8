"""Callers that ask for a strict sandbox, owners who insist on one, and nodes that have none at all."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.e2e import tier_sample as sample
from tests.e2e.mesh import run_cli, wait_until

from potluck.errors import Error, NoPeerError
from potluck_ledger.journal import verify

# gVisor's kernel says that it is this one, whatever the host's is.
GVISOR_RELEASE = "4.4.0"

needs_runsc = pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")


def receipts(node):
    return [entry.receipt for entry in verify(*node.journal())]


@needs_runsc
def test_a_caller_gets_the_tier_it_asks_for_and_the_receipt_names_it(mesh, use_node):
    caller = use_node(mesh.caller())
    mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding the provider")
    with sample.app.run(show_progress=False):
        assert sample.plain.remote() == (os.uname().release, "1")
        assert sample.strict.remote() == (GVISOR_RELEASE, "1")
    wait_until(lambda: len(receipts(caller)) == 2, "both receipts")
    assert {receipt.label: receipt.tier for receipt in receipts(caller)} == {
        "tiers.plain": "bwrap", "tiers.strict": "gvisor",
    }  # fmt: skip


@needs_runsc
def test_an_owner_who_insists_on_the_strict_tier_gets_it(mesh, use_node):
    use_node(mesh.node("ann", "--sandbox", "gvisor"))
    with sample.app.run(show_progress=False):
        assert sample.plain.remote()[0] == GVISOR_RELEASE


@needs_runsc
def test_too_much_memory_is_named_in_the_strict_tier_too(mesh, use_node):
    use_node(mesh.node("ann", "--memory-mib", "300"))
    with sample.app.run(show_progress=False), pytest.raises(Error, match="memory"):
        sample.eat.remote(2000)


@pytest.fixture
def programs():
    """A PATH without runsc, in a folder that everyone may enter: sandboxes are tried as another user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in ("bwrap", "mount", "setpriv", "unshare", "sh", "env", "true", "prlimit"):
        (folder / name).symlink_to(shutil.which(name) or "/bin/false")
    yield folder
    shutil.rmtree(folder)


def test_what_no_peer_has_is_said(mesh, use_node, programs):
    caller = use_node(mesh.caller())
    mesh.node("ann", env={"PATH": str(programs)})
    wait_until(lambda: caller.status().peers and caller.status().peers[0].cpu_milli, "finding the provider")
    with sample.app.run(show_progress=False), pytest.raises(NoPeerError, match="ann has no gvisor sandbox"):
        sample.strict.remote()


def test_a_node_without_sandboxes_serves_its_owner_alone(mesh, use_node):
    caller = mesh.caller()
    open_node = mesh.node("ann", "--sandbox", "process")
    wait_until(lambda: open_node.status().peers, "finding each other")
    assert "isolates nothing" in run_cli(open_node, "status").stdout
    use_node(open_node)
    with sample.app.run(show_progress=False):
        assert sample.plain.remote() == (os.uname().release, "")
    use_node(caller)
    with sample.app.run(show_progress=False), pytest.raises(NoPeerError):
        sample.plain.remote()
