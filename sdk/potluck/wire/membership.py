"""What two nodes of a private mesh say to each other before anything else, and what its admins ask of their node.

Certificates and revocations are as `potluck_ledger.membership` signs them; here they are bytes.
"""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message

# Of one introduction: a chain, and all revocations.
INTRODUCTION_BYTES_MAX = 1 << 20


class RevokedWords(msgspec.Struct, frozen=True, array_like=True):
    """A revocation's envelope, and the certificates of whoever signed it."""

    envelope: bytes
    chain: tuple[bytes, ...] = ()


class Introduce(Message, frozen=True):
    """Who is here, and all that this node knows to be revoked. Answered by the same, or `Refuse`."""

    chain: tuple[bytes, ...]
    revoked: tuple[RevokedWords, ...] = ()


class Join(Message, frozen=True):
    """To whoever invited: make me a member. `proof` is the signature of the invitation's key over this peer's id
    (`join_message`), `chain` are the certificates of whoever signed the invitation. Answered by `Welcome`, or
    `Refuse`."""

    invitation: bytes
    proof: bytes
    name: str
    chain: tuple[bytes, ...] = ()


class Welcome(Message, frozen=True):
    """The new member's certificate, with those on which it rests, and what an `Introduce` says."""

    member: tuple[bytes, ...]
    chain: tuple[bytes, ...]
    revoked: tuple[RevokedWords, ...] = ()


class Refuse(Message, frozen=True):
    """Before the connection ends."""

    why: str


Introduction = Introduce | Join
Answer = Introduce | Welcome | Refuse


class MemberFacts(Message, frozen=True):
    """A member as a node knows it. Times are Unix microseconds, `expires_us` 0 is never; `by` is who signed."""

    peer: str
    name: str
    roles: tuple[str, ...]
    issued_us: int
    expires_us: int
    by: str
    is_connected: bool


class AskMembers(Message, frozen=True):
    """Answered by `Members`."""


class InviteMember(Message, frozen=True):
    """Make a token for `uses` nodes, which can be used until `expires_us`; what they get lasts `lasts_us` (0: for
    ever). Answered by `Invited`."""

    roles: tuple[str, ...]
    uses: int
    expires_us: int
    lasts_us: int = 0


class RevokeMember(Message, frozen=True):
    """By peer id or name. Answered by `MembersRevoked`."""

    peer: str
    why: str = ""


class Members(Message, frozen=True):
    """`mesh` is the peer id of its key."""

    name: str
    mesh: str
    members: tuple[MemberFacts, ...]
    revoked: int = 0


class Invited(Message, frozen=True):
    token: str


class MembersRevoked(Message, frozen=True):
    """Who is a member no longer: the peer, and those whom it had named."""

    members: tuple[MemberFacts, ...]


class Done(Message, frozen=True):
    """What `create`, `join` and `leave` came to."""

    name: str
    mesh: str
    roles: tuple[str, ...]


MeshRequest = AskMembers | InviteMember | RevokeMember
MeshAnswer = Members | Invited | MembersRevoked
