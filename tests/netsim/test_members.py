"""Who is revoked gets nothing, and each defence is what sees to it."""

from tests.netsim.broken import first_broken

from potluck_ledger import roster
from potluck_ledger.roster import Roster
from potluck_netsim.members import Enrolled, Members
from potluck_netsim.network import Network
from potluck_netsim.scenarios import Options


def lab(seed):
    return Members(Options(seed, nodes=8, minutes=3, faults=Members.faults_of(seed)))


def breaks():
    return first_broken(lab, range(100))


def test_the_revoked_get_nothing():
    mesh = lab(1)
    assert mesh.run().results > 20
    assert sum(node.outcast for node in mesh.nodes) == 2


def test_who_takes_certificates_of_the_revoked_works_for_them(monkeypatch):
    honest = roster.check_chain
    monkeypatch.setattr(roster, "check_chain", lambda chain, mesh, now_us, revoked: honest(chain, mesh, now_us))
    monkeypatch.setattr(Roster, "member", lambda known, peer, now_us: (known._members.get(peer) or (None,))[0])
    assert "who is no member" in breaks()


def test_connections_that_stay_are_used(monkeypatch):
    monkeypatch.setattr(Network, "part", lambda network, host, peer: None)
    assert "who is no member" in breaks()


def test_word_that_is_told_once_alone_does_not_get_around(monkeypatch):
    monkeypatch.setattr(Roster, "revoked", lambda known: ())
    monkeypatch.setattr(Enrolled, "tell", lambda node, found: None)
    assert "does not know of" in breaks()
