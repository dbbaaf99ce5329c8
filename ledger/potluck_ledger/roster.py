"""Who belongs to a mesh, as one node knows it: chains of certificates, and what was revoked. Pure."""

from __future__ import annotations

import msgspec

from potluck_ledger.membership import (
    Chain,
    Member,
    MembershipError,
    Revocation,
    Revoked,
    check_chain,
    check_revoked,
)

# Members, and revocations, of one mesh: a mesh of that many nodes is a large lab, and all of it fits into one frame.
MEMBERS_MAX, REVOKED_MAX = 10_000, 1000


class RosterState(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of it. `used` counts, by the key of an invitation, who came by it."""

    chains: tuple[Chain, ...] = ()
    revoked: tuple[Revoked, ...] = ()
    used: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Roster:
    """Of the mesh with this id. Certificates and revocations are checked as they come."""

    def __init__(self, mesh: str, state: RosterState, now_us: int) -> None:
        self.mesh = mesh
        self._chains: dict[str, Chain] = {}
        self._members: dict[str, tuple[Member, ...]] = {}
        self._revoked: dict[str, Revoked] = {}
        self._why: dict[str, Revocation] = {}
        # Envelopes that were checked: each introduction brings all again.
        self._heard = set[bytes]()
        self._used = {key: list(peers) for key, peers in state.used}
        for found in state.revoked:
            self.revoke(found, now_us)
        for chain in state.chains:
            # What has expired since it was kept is no error.
            try:
                self.add(chain, now_us)
            except MembershipError:
                continue

    def state(self) -> RosterState:
        used = tuple((key, tuple(peers)) for key, peers in self._used.items())
        return RosterState(tuple(self._chains.values()), self.revoked(), used)

    def revoked(self) -> tuple[Revoked, ...]:
        return tuple(self._revoked.values())

    def add(self, chain: Chain, now_us: int) -> Member:
        """A certificate that was shown. Of two of one peer the later counts. Raises `MembershipError`."""
        members = check_chain(chain, self.mesh, now_us, self._revoked)
        peer, known = members[0].peer, self._members.get(members[0].peer)
        if known is None and len(self._members) >= MEMBERS_MAX:
            raise MembershipError(f"{MEMBERS_MAX} members are known here already")
        if known is None or members[0].issued_us >= known[0].issued_us:
            self._members[peer], self._chains[peer] = members, chain
        return members[0]

    def member(self, peer: str, now_us: int) -> Member | None:
        """A member as it stands now: nobody on whom it rests has expired or was revoked."""
        members = self._members.get(peer, ())
        if any(each.peer in self._revoked or 0 < each.expires_us <= now_us for each in members):
            return None
        return members[0] if members else None

    def knows(self, peer: str) -> bool:
        """Whether anything was ever heard of it: that it is, was, or is no more."""
        return peer in self._members or peer in self._revoked

    def members(self, now_us: int) -> list[Member]:
        return [found for peer in self._members if (found := self.member(peer, now_us))]

    def chain(self, peer: str) -> Chain:
        return self._chains.get(peer, ())

    def revoke(self, found: Revoked, now_us: int) -> Revocation | None:
        """One that was heard; None when it is known. Raises `MembershipError`."""
        revocation = check_revoked(found, self.mesh, now_us)
        if len(self._heard) < 2 * REVOKED_MAX:
            self._heard.add(found.envelope)
        if revocation.peer in self._revoked:
            return None
        if len(self._revoked) >= REVOKED_MAX:
            raise MembershipError(f"{REVOKED_MAX} revocations are known here already: make a new mesh")
        self._revoked[revocation.peer], self._why[revocation.peer] = found, revocation
        return revocation

    def has_heard(self, envelope: bytes) -> bool:
        """Whether this very revocation was checked before, and held."""
        return envelope in self._heard

    def revoked_peers(self) -> frozenset[str]:
        return frozenset(self._revoked)

    def why(self, peer: str) -> Revocation | None:
        return self._why.get(peer)

    def resting_on(self, peer: str, now_us: int) -> list[Member]:
        """Members who are none any more once this peer is revoked."""
        found = self._members.values()
        return [
            each[0]
            for each in found
            if any(above.peer == peer for above in each[1:]) and self.member(each[0].peer, now_us)
        ]

    def use(self, key: str, uses: int, peer: str) -> None:
        """Somebody comes by an invitation; twice the same counts once. Raises `MembershipError`."""
        peers = self._used.setdefault(key, [])
        if peer in peers:
            return
        if len(peers) >= uses:
            raise MembershipError(f"the invitation was used {uses} times already")
        peers.append(peer)
