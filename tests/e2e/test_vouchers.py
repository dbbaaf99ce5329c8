"""Long leases are signed for while they run; who does not sign is stopped, and who dies owes what was signed."""

import pytest
from tests.e2e import spawn_sample as sample
from tests.e2e.mesh import Node, wait_until

from potluck import calls
from potluck_ledger.entries import Dispute, Receipt, Voucher
from potluck_ledger.journal import verify
from potluck_ledger.vouchers import OFFER_AFTER_US, UNSIGNED_MAX_US


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    yield
    if calls._connection:
        calls._connection.close()


def contents(node, kind):
    return [entry.content for entry in verify(*node.journal()) if isinstance(entry.content, kind)]


def begin(caller, provider, use_node, seconds=600):
    use_node(caller)
    with sample.app.run(show_progress=False):
        call = sample.slow_double.spawn_map([1], kwargs={"seconds": seconds})
    wait_until(lambda: any(worker.state == "running" for worker in provider.status().workers), "the call running")
    return call


def two(mesh, caller=Node, provider=Node):
    """A caller and a provider, of these kinds."""
    for kind, name, flags in ((caller, "cas", ("--no-offer",)), (provider, "ann", ("--cpus", "1"))):
        others = ("--bootstrap", mesh.nodes[0].address) if mesh.nodes else ()
        mesh.nodes.append(kind(mesh.folder, name, "--without-limits", *flags, *others).start())
    wait_until(lambda: mesh.nodes[0].status().peers, "finding the provider")
    return mesh.nodes


def test_what_was_signed_is_owed_when_the_caller_is_killed(mesh, use_node):
    caller, provider = two(mesh)
    begin(caller, provider, use_node)
    held = caller.home / "journal-2.sqlite"
    wait_until(lambda: vouchers_in(held), "the first voucher")
    caller.kill()
    wait_until(lambda: contents(provider, Dispute), "the end of the lease")
    (voucher,), (dispute,), (receipt,) = (contents(provider, kind) for kind in (Voucher, Dispute, Receipt))
    assert OFFER_AFTER_US <= voucher.lease_us <= receipt.lease_us
    assert (dispute.claimed_us, dispute.signed_us) == (receipt.lease_us, voucher.lease_us)
    # A machine that is gone is noticed after three seconds.
    assert receipt.lease_us - voucher.lease_us < UNSIGNED_MAX_US
    caller.start()
    owed = contents(caller, Voucher)
    assert [each.lease for each in owed] == [voucher.lease]
    assert owed[0].lease_us <= receipt.lease_us


def vouchers_in(path):
    import sqlite3

    with sqlite3.connect(path) as db:
        return db.execute("SELECT count(*) FROM vouchers").fetchone()[0]


def test_a_receipt_of_both_stands_for_its_vouchers(mesh, use_node):
    caller, provider = two(mesh)
    assert begin(caller, provider, use_node, seconds=3).get() == 2
    wait_until(lambda: contents(provider, Receipt) and contents(caller, Receipt), "the receipt")
    for node in (provider, caller):
        assert not contents(node, Voucher)
        assert not contents(node, Dispute)
        assert not vouchers_in(node.home / "journal-2.sqlite")
    assert contents(provider, Receipt) == contents(caller, Receipt)


class Unsigning(Node):
    module = "tests.e2e.unsigning_node"


class Strict(Node):
    module = "tests.e2e.strict_node"


def test_a_caller_that_does_not_sign_is_stopped_with_a_dispute_and_gets_no_more(mesh, use_node):
    caller, provider = two(mesh, Unsigning, Strict)
    call = begin(caller, provider, use_node)
    wait_until(lambda: contents(provider, Dispute), "the dispute")
    dispute = contents(provider, Dispute)[0]
    assert dispute.signed_us == 0
    assert dispute.claimed_us < UNSIGNED_MAX_US
    assert "does not sign" in dispute.reason
    wait_until(lambda: "did not sign for" in str(caller.status()), "the refusal")
    assert len(contents(provider, Dispute)) == 1
    call.cancel()
