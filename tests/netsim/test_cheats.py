"""Cheating providers and callers among honest ones: none ends both unpaid for and unproven, and each defence is what
prevents it: taken away, the same worlds break the promise."""

import pytest
from tests.netsim.broken import first_broken

from potluck_ledger import vouchers
from potluck_ledger.balance import Account
from potluck_ledger.journal import Journal
from potluck_ledger.vouchers import CallerVouchers
from potluck_netsim import provider
from potluck_netsim.cheats import Cheats
from potluck_netsim.faults import Faults
from potluck_netsim.scenarios import Options
from potluck_node import books

# Nobody dies, so that all can be reckoned to the microsecond; workers crash, and inputs raise and straggle.
CALM = Faults(deaths_per_hour=0, freezes_per_hour=0, pauses_per_hour=0, cancelled_milli=50)
ROUGH = Faults(deaths_per_hour=60, freezes_per_hour=30, pauses_per_hour=30, latency_max_us=300_000)


def lab(seed, nodes=8, minutes=2, faults=CALM):
    return Cheats(Options(seed, nodes=nodes, minutes=minutes, faults=faults))


@pytest.mark.parametrize("seed", range(9))
def test_no_cheat_pays(seed):
    mesh = lab(seed)
    assert mesh.run().results > 100
    kinds, found = mesh.kinds(), list(mesh.findings())
    if list(kinds.values()).count("washing") > 1:
        assert any(finding.kind == "wash" for finding in found)
    named = [finding.text for finding in found if finding.kind in ("dispute", "disagreement")]
    assert named, "nobody says anything"


@pytest.mark.parametrize("seed", range(4))
def test_no_cheat_pays_while_nodes_die(seed):
    assert lab(seed, faults=ROUGH).run().results > 20


def test_two_that_wash_are_found():
    mesh = Cheats(Options(3, nodes=38, minutes=0.2, faults=CALM))
    mesh.run()
    washing = [node.peer for node in mesh.nodes if mesh.kinds()[node.name] == "washing"]
    assert len(washing) > 1
    (text,) = [finding.text for finding in mesh.findings() if finding.kind == "wash"]
    assert all(peer in text for peer in washing)


def breaks(seeds=range(100)):
    return first_broken(lab, seeds)


def test_callers_who_hold_no_bill_against_their_clock_pay_too_much(monkeypatch):
    monkeypatch.setattr(CallerVouchers, "_objection", lambda vouchers, voucher, bound_us, now_us: "")
    monkeypatch.setattr(books, "objection", lambda *given: "")
    assert "more than it saw" in breaks()


def test_callers_who_believe_the_sum_of_a_receipt_pay_too_much(monkeypatch):
    monkeypatch.setattr(books, "objection", lambda *given: "")
    assert "more than it saw" in breaks()


def test_providers_who_never_stop_are_not_paid(monkeypatch):
    monkeypatch.setattr(vouchers, "STOP_AT_US", 1 << 60)
    monkeypatch.setattr(Account, "owes_too_much", property(lambda account: False))
    assert "for which it never signed" in breaks()


def test_providers_who_forget_the_names_of_leases_cannot_show_what_they_gave(monkeypatch):
    monkeypatch.setattr(Journal, "knows_lease", lambda journal, peer, lease: False)
    assert "is billed again" in breaks()


def test_providers_who_keep_nothing_of_what_was_not_signed_cannot_show_it(monkeypatch):
    def settle(key, journal, action, ours, theirs, now_us):
        if theirs:
            honest(key, journal, action, ours, theirs, now_us)

    honest = books.settle
    monkeypatch.setattr(provider, "settle", settle)
    assert "unpaid for and unproven" in breaks()
