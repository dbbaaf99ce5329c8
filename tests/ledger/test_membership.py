"""Who is a member of a mesh: certificates, chains, invitations, revocations, and what nobody accepts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_ledger import membership as m
from potluck_ledger.envelope import countersign, open_envelope, seal
from potluck_ledger.keys import PrivateKey
from potluck_ledger.roster import Roster, RosterState

MESH, ANN, BOB, EVE, OTHER = (PrivateKey(bytes([number]) * 32) for number in range(1, 6))
NOW = 1_800_000_000_000_000
DAY = 24 * 3600 * 1_000_000


def member(key: PrivateKey, signer: PrivateKey = MESH, **fields: Any) -> bytes:
    given = {"mesh": MESH.peer, "peer": key.peer, "name": "n", "roles": (m.CALLER,), "issued_us": NOW} | fields
    return m.sign(signer, m.MEMBER_KIND, m.Member(**given))


def admin(key: PrivateKey, signer: PrivateKey = MESH, **fields: Any) -> bytes:
    return member(key, signer, roles=(m.ADMIN,), **fields)


def revoked(key: PrivateKey, signer: PrivateKey = MESH, chain: m.Chain = (), at_us: int = NOW) -> m.Revoked:
    return m.Revoked(m.sign(signer, m.REVOCATION_KIND, m.Revocation(MESH.peer, key.peer, at_us, "lost")), chain)


def test_a_certificate_of_the_meshs_key_counts() -> None:
    found = m.check_chain((member(BOB),), MESH.peer, NOW)
    assert [each.peer for each in found] == [BOB.peer]


def test_admins_name_others() -> None:
    chain = (member(EVE, BOB), admin(BOB, ANN), admin(ANN))
    assert [each.peer for each in m.check_chain(chain, MESH.peer, NOW)] == [EVE.peer, BOB.peer, ANN.peer]


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        ((), "one to"),
        ((member(BOB),) * 5, "one to"),
        ((member(BOB, EVE),), "not for this mesh"),
        ((member(BOB, ANN), member(ANN)), "no admin"),
        ((member(BOB, ANN), admin(EVE)), "no admin"),
        ((member(BOB), admin(ANN)), "follow"),
        ((member(BOB, mesh=OTHER.peer),), "another mesh"),
        ((member(BOB, issued_us=NOW + DAY),), "future"),
        ((member(BOB, expires_us=NOW),), "expired"),
        ((member(BOB, ANN), admin(ANN, expires_us=NOW - 1)), "expired"),
        ((b"nonsense",), "not a member"),
        ((revoked(BOB).envelope,), "not a member"),
        ((seal(MESH, m.MEMBER_KIND, b"\x96").encode(),), "not a member"),
    ],
)
def test_what_does_not_count(chain: m.Chain, text: str) -> None:
    with pytest.raises(m.MembershipError, match=text):
        m.check_chain(chain, MESH.peer, NOW)


def test_one_encoding_and_one_signature() -> None:
    body = msgspec.msgpack.encode(m.Member(MESH.peer, BOB.peer, "n", (m.CALLER,), NOW))
    twice = countersign(ANN, open_envelope(member(BOB), m.MEMBER_KIND)).encode()
    # An array whose length is written in two bytes more than it needs.
    longer = seal(MESH, m.MEMBER_KIND, b"\xdc\x00\x06" + body[1:]).encode()
    for data in (twice, longer):
        with pytest.raises(m.MembershipError, match="one signature and one encoding"):
            m.read_member(data)


@pytest.mark.parametrize("roles", [(), ("caller", "admin"), ("caller", "caller"), ("king",)])
def test_roles_are_known_and_sorted(roles: tuple[str, ...]) -> None:
    with pytest.raises(m.MembershipError, match="roles"):
        member(BOB, roles=roles)
    forged = m.Member(MESH.peer, BOB.peer, "n", roles, NOW)
    with pytest.raises(m.MembershipError, match="roles"):
        m.read_member(seal(MESH, m.MEMBER_KIND, msgspec.msgpack.encode(forged)).encode())


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(m.MembershipError):
        m.check_chain((data,), MESH.peer, NOW)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_noticed(place: int, byte: int) -> None:
    data = bytearray(member(BOB))
    place %= len(data)
    if data[place] == byte:
        return
    data[place] = byte
    with pytest.raises(m.MembershipError):
        m.check_chain((bytes(data),), MESH.peer, NOW)


# Invitations


def invitation(signer: PrivateKey = MESH, **fields: Any) -> bytes:
    given = {"mesh": MESH.peer, "key": OTHER.peer, "issuer": ANN.peer, "roles": (m.CALLER,), "uses": 2}
    return m.sign(signer, m.INVITATION_KIND, m.Invitation(**(given | {"expires_us": NOW + DAY} | fields)))


def test_an_invitation_is_of_use_to_whoever_has_its_key() -> None:
    found = m.check_invitation(invitation(), (), MESH.peer, NOW)
    proof = OTHER.sign(m.join_message(MESH.peer, BOB.peer))
    m.check_join(found, BOB.peer, proof)
    for peer, shown in ((EVE.peer, proof), (BOB.peer, EVE.sign(m.join_message(MESH.peer, BOB.peer))), (BOB.peer, b"")):
        with pytest.raises(m.MembershipError, match="not shown"):
            m.check_join(found, peer, shown)


@pytest.mark.parametrize(
    ("data", "chain", "text"),
    [
        (invitation(ANN), (), "one to"),
        (invitation(ANN), (member(ANN),), "no admin"),
        (invitation(ANN), (admin(BOB),), "no admin"),
        (invitation(mesh=OTHER.peer), (), "another mesh"),
        (invitation(expires_us=NOW), (), "expired"),
        (invitation(uses=0), (), "no use"),
    ],
)
def test_invitations_that_do_not_count(data: bytes, chain: m.Chain, text: str) -> None:
    with pytest.raises(m.MembershipError, match=text):
        m.check_invitation(data, chain, MESH.peer, NOW)


def test_uses_are_counted_by_peer() -> None:
    roster = Roster(MESH.peer, RosterState(), NOW)
    for key in (BOB, BOB, EVE):
        roster.use("key", 2, key.peer)
    with pytest.raises(m.MembershipError, match="2 times"):
        roster.use("key", 2, ANN.peer)
    again = Roster(MESH.peer, roster.state(), NOW)
    with pytest.raises(m.MembershipError, match="2 times"):
        again.use("key", 2, ANN.peer)


# Revocations, and what a node knows


def test_a_revocation_ends_a_member_and_all_whom_it_named() -> None:
    roster = Roster(MESH.peer, RosterState(), NOW)
    roster.add((admin(ANN),), NOW)
    roster.add((member(BOB, ANN), admin(ANN)), NOW)
    roster.add((member(EVE),), NOW)
    assert [each.peer for each in roster.resting_on(ANN.peer, NOW)] == [BOB.peer]
    assert roster.revoke(revoked(ANN), NOW)
    assert roster.has_heard(revoked(ANN).envelope)
    assert roster.revoke(revoked(ANN), NOW) is None
    assert [each.peer for each in roster.members(NOW)] == [EVE.peer]
    with pytest.raises(m.MembershipError, match="was revoked"):
        roster.add((admin(ANN, issued_us=NOW + 1),), NOW)
    with pytest.raises(m.MembershipError, match="was revoked"):
        roster.add((member(BOB, ANN), admin(ANN)), NOW)
    assert [each.peer for each in Roster(MESH.peer, roster.state(), NOW).members(NOW)] == [EVE.peer]


def test_only_admins_revoke() -> None:
    roster = Roster(MESH.peer, RosterState(), NOW)
    for found in (revoked(BOB, EVE), revoked(BOB, EVE, (member(EVE),)), revoked(BOB, at_us=NOW + DAY)):
        with pytest.raises(m.MembershipError):
            roster.revoke(found, NOW)
    assert roster.revoke(revoked(BOB, ANN, (admin(ANN, expires_us=NOW + 1),)), NOW + DAY)


def test_what_expires_is_gone_and_a_later_certificate_counts() -> None:
    roster = Roster(MESH.peer, RosterState(), NOW)
    roster.add((member(BOB, expires_us=NOW + 10),), NOW)
    assert roster.member(BOB.peer, NOW)
    assert roster.member(BOB.peer, NOW + 10) is None
    roster.add((member(BOB, issued_us=NOW + 1),), NOW)
    roster.add((member(BOB, expires_us=NOW + 10),), NOW)
    assert roster.member(BOB.peer, NOW + 10)


CHAINS = [(admin(ANN),), (member(BOB, ANN), admin(ANN)), (member(EVE),), (admin(BOB, issued_us=NOW + 5),)]
REVOKED = [revoked(ANN), revoked(BOB, ANN, (admin(ANN),)), revoked(EVE, BOB, (admin(BOB),))]


@given(st.permutations([*CHAINS, *REVOKED]), st.permutations([*CHAINS, *REVOKED]))
def test_all_nodes_come_to_the_same_whatever_they_hear_first(one: list[Any], other: list[Any]) -> None:
    def heard(words: list[Any]) -> list[m.Member]:
        roster = Roster(MESH.peer, RosterState(), NOW)
        for word in words:
            try:
                roster.revoke(word, NOW) if isinstance(word, m.Revoked) else roster.add(word, NOW)
            except m.MembershipError:
                continue
        return sorted(roster.members(NOW), key=lambda each: each.peer)

    assert heard(one) == heard(other)
