"""What is known of peers and why, on disk and for clients."""

import sqlite3

import msgspec
import pytest
from tests.meshnode.clocks import HandClock
from tests.meshnode.core.worlds import NOW_US, offer

from potluck.errors import InvalidError
from potluck.wire.verify import EVIDENCE_MAX, AskEvidence, AskPeers, EvidenceFacts, Vote
from potluck_node import evidence as limits
from potluck_node.config import Settings
from potluck_node.core.levels import Levels
from potluck_node.core.offers import OfferBook
from potluck_node.core.reputation import Reputation
from potluck_node.evidence import EvidenceStore
from potluck_node.private_mesh import levels
from potluck_node.strangers import Strangers, default_rule


def decided(number, *peers, verdict="right"):
    votes = tuple(Vote(peer, f"lease {peer}", "ab" * 32, verdict) for peer in peers)
    return EvidenceFacts(NOW_US + number, "quorum", "app", "f", "cd" * 32, "ef" * 32, "value", votes)


class Silent:
    def peers(self):
        return ("here",)


def strangers(path, trust="none"):
    book = OfferBook("open", "us")
    book.add(offer("ann", mesh="open"), NOW_US)
    return Strangers(path, "mira", "open", Reputation(), Levels("us", trust), book, Silent(), HandClock())


def test_what_is_known_outlives_the_node(tmp_path):
    path = tmp_path / "strangers.sqlite"
    first = strangers(path)
    first._reputation.verdict("bob", "image", False, NOW_US, proof=True)
    first.judged(decided(1, "bob", verdict="wrong"))
    first.billed("ann", True)
    first.close()
    again = strangers(path)
    assert "canary" in again._reputation.banned("bob", NOW_US)
    facts = {each.peer: each for each in again.answer(AskPeers(1)).peers}
    assert set(facts) == {"us", "ann", "bob", "here"}
    assert (facts["us"].level, facts["us"].name, facts["us"].code) == ("owner", "mira", True)
    assert (facts["ann"].level, facts["ann"].right, facts["ann"].banned_us) == ("stranger", 0.1, 0)
    assert (facts["bob"].wrong, facts["bob"].banned_why) == (1, "it failed a canary")
    (kept,) = again.answer(AskEvidence(1, "bob")).evidence
    assert kept == decided(1, "bob", verdict="wrong")
    assert again.answer(AskEvidence(1, "ann")).evidence == ()
    again.close()


def test_our_own_leases_say_nothing_of_us(tmp_path):
    made = strangers(tmp_path / "s")
    made.billed("us", False)
    assert made._reputation.records == {}


def test_evidence_is_bounded_and_the_newest_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "KEPT_MAX", 300)
    monkeypatch.setattr(limits, "PRUNE_EVERY", 100)
    store = EvidenceStore(tmp_path / "s")
    for number in range(1000):
        store.add(decided(number, "ann"))
    found = store.newest()
    assert len(found) == EVIDENCE_MAX
    assert found[0].at_us == NOW_US + 999
    assert store._db.execute("SELECT COUNT(*) FROM evidence").fetchone()[0] <= 400


def test_a_record_that_cannot_be_read_is_forgotten(tmp_path):
    store = EvidenceStore(tmp_path / "s")
    store._db.execute("INSERT INTO records VALUES ('ann', x'ff')")
    assert store.records() == {}


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(b"no database at all, and long enough to tell")
    with pytest.raises(InvalidError, match="cannot be used"):
        EvidenceStore(path)


def test_a_full_disk_costs_the_evidence_and_not_the_call(tmp_path, monkeypatch, caplog):
    made = strangers(tmp_path / "s")

    def full(*given):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(made._store, "add", full)
    monkeypatch.setattr(made._store, "keep", full)
    made.judged(decided(1, "ann"))
    made.billed("ann", True)
    assert caplog.text.count("disk is full") == 2


def test_settings_and_membership_make_levels():
    class Membership:
        def member(self, peer):
            return "certificate" if peer == "ann" else None

    given = {"trust": ("bob",), "trust_levels": {"cas": "owner"}, "strangers_sandbox": "gvisor"}
    settings = msgspec.structs.replace(Settings(), verify_strangers="adaptive", **given)
    found = levels("us", settings, Membership())
    assert [found.of(peer).level for peer in ("us", "ann", "bob", "cas", "dan")] == [
        "owner", "lab", "known", "owner", "stranger",
    ]  # fmt: skip
    assert (found.of("dan").tier, found.of("dan").verify) == ("gvisor", "adaptive")
    assert levels("us", Settings(), None).of("ann").level == "stranger"


@pytest.mark.parametrize(("mode", "needed"), [("none", None), ("adaptive", 2), ("quorum:3of5", 3)])
def test_the_setting_is_a_rule(mode, needed):
    rule = default_rule(mode)
    assert (rule and rule.needed) == needed
