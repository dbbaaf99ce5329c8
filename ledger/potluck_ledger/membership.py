"""Membership of a private mesh: certificates, invitations, revocations. Rules: docs/decisions/membership.md.

A mesh is known by the peer id of its key. A certificate is signed by that key, or by an admin, whose own certificate
then follows it in a chain. What is revoked stays so; what all nodes have heard adds up to the same in any order.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TypeVar

import msgspec

from potluck_ledger.envelope import Envelope, EnvelopeError, open_envelope, seal
from potluck_ledger.keys import PrivateKey, PublicKey, is_ed25519

MEMBER_KIND = "potluck/member/1"
INVITATION_KIND = "potluck/invitation/1"
REVOCATION_KIND = "potluck/revocation/1"

ADMIN, CALLER, PROVIDER = "admin", "caller", "provider"
ROLES = (ADMIN, CALLER, PROVIDER)

# Of a name, and of why somebody was revoked; both are shown to users.
TEXT_MAX = 200
# Certificates in each other: the mesh's founder names admins, who name others.
CHAIN_MAX = 4
# One token for a class room; more is a mistake.
USES_MAX = 10_000
# How far a clock may be wrong, microseconds, as for offers.
SKEW_US = 120 * 1_000_000

# A certificate, then that of whoever signed it, up to one that the mesh's key signed.
Chain = tuple[bytes, ...]


class MembershipError(Exception):
    """A certificate, invitation or revocation that does not hold; the text says why."""


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`peer` is of `mesh`, in these `roles` (sorted). Times are Unix microseconds; `expires_us` 0 is never."""

    mesh: str
    peer: str
    name: str
    roles: tuple[str, ...]
    issued_us: int
    expires_us: int = 0


class Invitation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whoever has the private key of `key` may become a member through `issuer`, as often as `uses` says, until
    `expires_us`. What they get lasts `lasts_us` (0: for ever)."""

    mesh: str
    key: str
    issuer: str
    roles: tuple[str, ...]
    uses: int
    expires_us: int
    lasts_us: int = 0


class Revocation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`peer` is no member any more, and nobody whom it named is."""

    mesh: str
    peer: str
    at_us: int
    why: str = ""


class Revoked(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A revocation's envelope, with the certificates of whoever signed it; none where that is the mesh's key."""

    envelope: bytes
    chain: Chain = ()


_T = TypeVar("_T", Member, Invitation, Revocation)


def sign(key: PrivateKey, kind: str, body: Member | Invitation | Revocation) -> bytes:
    """An envelope. Raises `MembershipError` for what nobody would accept."""
    if isinstance(body, Member | Invitation):
        check_roles(body.roles)
    texts = (getattr(body, "name", ""), getattr(body, "why", ""))
    if max(map(len, texts)) > TEXT_MAX:
        raise MembershipError(f"a text is longer than {TEXT_MAX} characters")
    return seal(key, kind, msgspec.msgpack.encode(body)).encode()


def check_roles(roles: Sequence[str]) -> None:
    """Raises `MembershipError` unless they are known, sorted, and at least one."""
    if not roles or list(roles) != sorted(set(roles)) or set(roles) - set(ROLES):
        raise MembershipError(f"roles are some of {', '.join(ROLES)}, each once and sorted")


def read_member(data: bytes) -> tuple[Member, str]:
    """A certificate, and who signed it. Raises `MembershipError`; whether it counts says `check_chain`."""
    return _read(data, MEMBER_KIND, Member)


def check_chain(chain: Chain, mesh: str, now_us: int, revoked: Container[str] = ()) -> tuple[Member, ...]:
    """The member to whom a chain belongs, and those on whom that rests. Raises `MembershipError`."""
    if not 1 <= len(chain) <= CHAIN_MAX:
        raise MembershipError(f"a chain has one to {CHAIN_MAX} certificates")
    first, signer = read_member(chain[0])
    _check(first, mesh, now_us, revoked)
    found = [first]
    for data in chain[1:]:
        if signer == mesh:
            raise MembershipError("certificates follow one that the mesh's key signed")
        member, above = read_member(data)
        _check(member, mesh, now_us, revoked)
        if member.peer != signer or ADMIN not in member.roles:
            raise MembershipError(f"the certificate was signed by {signer}, who is no admin of the mesh")
        signer = above
        found.append(member)
    if signer != mesh:
        raise MembershipError(f"the certificate was signed by {signer}, and not for this mesh")
    return tuple(found)


def _check(member: Member, mesh: str, now_us: int, revoked: Container[str]) -> None:
    if member.mesh != mesh:
        raise MembershipError("the certificate is of another mesh")
    if member.issued_us > now_us + SKEW_US:
        raise MembershipError("the certificate is of the future: is a clock wrong?")
    if member.expires_us and member.expires_us <= now_us:
        raise MembershipError(f"the certificate of {member.name or member.peer} has expired")
    if member.peer in revoked:
        raise MembershipError(f"{member.name or member.peer} was revoked")


def check_invitation(data: bytes, chain: Chain, mesh: str, now_us: int, revoked: Container[str] = ()) -> Invitation:
    """An invitation that counts now; `chain` is that of whoever signed it, empty for the mesh's key. Raises
    `MembershipError`."""
    invitation, signer = _read(data, INVITATION_KIND, Invitation)
    _check_signer(signer, chain, mesh, now_us, revoked)
    if invitation.mesh != mesh:
        raise MembershipError("the invitation is to another mesh")
    if invitation.expires_us <= now_us:
        raise MembershipError("the invitation has expired")
    if not 1 <= invitation.uses <= USES_MAX:
        raise MembershipError("the invitation is of no use")
    return invitation


def check_revoked(found: Revoked, mesh: str, now_us: int) -> Revocation:
    """A revocation by the mesh's key or an admin. Raises `MembershipError`.

    One by an admin who was revoked counts too: so all nodes come to the same, whatever they hear first.
    """
    revocation, signer = _read(found.envelope, REVOCATION_KIND, Revocation)
    if revocation.mesh != mesh:
        raise MembershipError("the revocation is of another mesh")
    if revocation.at_us > now_us + SKEW_US:
        raise MembershipError("the revocation is of the future: is a clock wrong?")
    # The admin's certificate may have expired since.
    _check_signer(signer, found.chain, mesh, min(now_us, revocation.at_us))
    return revocation


def _check_signer(signer: str, chain: Chain, mesh: str, now_us: int, revoked: Container[str] = ()) -> None:
    if signer == mesh and not chain:
        return
    admin = check_chain(chain, mesh, now_us, revoked)[0]
    if admin.peer != signer or ADMIN not in admin.roles:
        raise MembershipError(f"{signer} is no admin of the mesh")


def join_message(mesh: str, peer: str) -> bytes:
    """What the key of an invitation signs, so that the invitation is of use to this peer alone."""
    return b"potluck/join/1 " + mesh.encode() + b" " + peer.encode()


def check_join(invitation: Invitation, peer: str, proof: bytes) -> None:
    """Raises `MembershipError` unless the peer has the invitation's key."""
    try:
        key = PublicKey.of_peer(invitation.key)
    except ValueError:
        raise MembershipError("the invitation's key is none") from None
    if not key.verify(join_message(invitation.mesh, peer), proof):
        raise MembershipError("the token was not shown by this peer")


def _read(data: bytes, kind: str, body: type[_T]) -> tuple[_T, str]:
    try:
        envelope: Envelope = open_envelope(data, kind)
        found = msgspec.msgpack.decode(envelope.body, type=body)
        canonical = msgspec.msgpack.encode(found)
    except (EnvelopeError, msgspec.DecodeError, UnicodeError) as error:
        raise MembershipError(f"not a {kind.split('/')[1]}: {error}") from None
    if canonical != envelope.body or len(envelope.signatures) != 1:
        raise MembershipError(f"a {kind.split('/')[1]} has one signature and one encoding")
    _check_texts(found)
    return found, envelope.signers[0]


def _check_texts(found: Member | Invitation | Revocation) -> None:
    peers = [getattr(found, name) for name in ("mesh", "peer", "key", "issuer") if hasattr(found, name)]
    if not all(map(is_ed25519, peers)):
        raise MembershipError("a peer is not known by an Ed25519 key")
    if not isinstance(found, Revocation):
        check_roles(found.roles)
    if max(len(getattr(found, name, "")) for name in ("name", "why")) > TEXT_MAX:
        raise MembershipError("a text is too long")
