"""Membership on a node that runs: introduces it, admits members, invites, revokes, and spreads what was revoked.

An `Admission` (`transport.interface`). What counts is decided by `potluck_ledger.membership`; here it is said and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from potluck import wire
from potluck.errors import Error, InvalidError, NotFoundError, RefusedError
from potluck.wire import membership as messages
from potluck_ledger import membership as rules
from potluck_ledger.keys import PrivateKey
from potluck_ledger.membership import Invitation, Member, MembershipError, Revocation, Revoked
from potluck_ledger.roster import Roster
from potluck_node import mesh_token
from potluck_node.clock import Clock
from potluck_node.config import Settings
from potluck_node.core.reach import CIRCUIT
from potluck_node.mesh_folder import MeshFile, MeshFolder
from potluck_node.transport.interface import NotAdmittedError, Stream, Transport

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.mesh")

# How often it is looked whose certificate has expired, seconds.
LOOK_S = 30.0


class Membership:
    """Raises `InvalidError` when our own certificate does not hold."""

    def __init__(self, folder: MeshFolder, file: MeshFile, key: PrivateKey, clock: Clock) -> None:
        self._folder, self.file, self._key, self._clock = folder, file, key, clock
        self._mesh_key = folder.key()
        self._roster = Roster(file.id, folder.roster(), clock.now_us())
        try:
            self.own = self._roster.add(file.chain, clock.now_us())
        except MembershipError as error:
            fix = "Ask an admin for a new token, then: potluck mesh leave; potluck join TOKEN"
            raise InvalidError(f"This node is no member of {file.name}.", why=str(error), fix=fix) from None
        self.transport: Transport | None = None
        # Told when somebody is a member no longer.
        self.changed: Callable[[], None] = lambda: None

    def settled(self, settings: Settings) -> tuple[Settings, str]:
        """Settings to match our place on the mesh, and what the owner should know."""
        bootstrap = tuple(dict.fromkeys((*settings.bootstrap, *self.file.bootstrap)))
        found = msgspec.structs.replace(settings, mesh=self.file.name, bootstrap=bootstrap)
        if not settings.offer or rules.PROVIDER in self.own.roles:
            return found, ""
        why = f"This node runs no functions: on {self.file.name} it is no provider."
        return msgspec.structs.replace(found, offer=False), why

    # What the transport asks

    def admits(self, peer: str) -> bool:
        return peer == self._key.peer or self.member(peer) is not None

    def member(self, peer: str) -> Member | None:
        """As it stands now."""
        return self._roster.member(peer, self._clock.now_us())

    def roles(self, peer: str) -> tuple[str, ...]:
        """Those of a member; none for anybody else."""
        found = self.own if peer == self._key.peer else self.member(peer)
        return found.roles if found else ()

    def names(self) -> dict[str, str]:
        """Of the members that this node has met, by peer id."""
        return {each.peer: each.name for each in self._roster.members(self._clock.now_us())}

    def may_offer(self, peer: str) -> bool:
        """Whether a peer's offer is worth keeping. One that was not met yet shows what it is when it is reached."""
        found = self.member(peer)
        return rules.PROVIDER in found.roles if found else not self._roster.knows(peer)

    async def introduce(self, stream: Stream) -> None:
        await stream.send(wire.encode(self._introduction()))
        answer: messages.Answer = _decoded(await stream.receive(), messages.Answer)
        if not isinstance(answer, messages.Introduce):
            why = answer.why if isinstance(answer, messages.Refuse) else "it answered something else"
            raise NotAdmittedError(f"{stream.peer} does not take us for a member of {self.file.name}: {why:.200}")
        try:
            await self._hear(stream.peer, answer)
        except MembershipError as error:
            raise NotAdmittedError(f"{stream.peer} is no member of {self.file.name}: {error}") from None

    async def answer(self, stream: Stream) -> None:
        message: messages.Introduction = _decoded(await stream.receive(), messages.Introduction)
        try:
            reply: messages.Answer
            if isinstance(message, messages.Join):
                reply = await self._welcome(stream.peer, message)
            else:
                await self._hear(stream.peer, message)
                reply = self._introduction()
        except MembershipError as error:
            await stream.send(wire.encode(messages.Refuse(str(error))))
            raise NotAdmittedError(f"{stream.peer} is refused: {error}") from None
        await stream.send(wire.encode(reply))

    def _introduction(self) -> messages.Introduce:
        return messages.Introduce(self.file.chain, _words(self._roster.revoked()))

    async def _hear(self, peer: str, message: messages.Introduce) -> None:
        """Raises `MembershipError` unless they are a member, by what they know, too. Nothing else of a stranger is
        looked at."""
        if self._roster.add(message.chain, self._clock.now_us()).peer != peer:
            raise MembershipError("the certificate is another peer's")
        await self._hear_revoked(message.revoked)
        if not self.admits(peer):
            raise MembershipError("it was revoked")

    async def _hear_revoked(self, words: tuple[messages.RevokedWords, ...]) -> None:
        """What is new is kept before anything else, and ends connections at once."""
        fresh = []
        for each in words:
            if self._roster.has_heard(each.envelope):
                continue
            try:
                fresh.append(self._roster.revoke(Revoked(each.envelope, each.chain), self._clock.now_us()))
            except MembershipError as error:
                log.info("a revocation does not hold: %s", error)
        if any(fresh):
            await self._keep()
            await self._act([each for each in fresh if each])

    async def _act(self, fresh: list[Revocation]) -> None:
        for each in fresh:
            log.warning("%s is no member of %s any more: %s", each.peer, self.file.name, each.why or "no reason given")
        await self._part()
        self.changed()

    async def _part(self) -> None:
        """From all who are no members."""
        transport = self.transport
        for peer in transport.connected() if transport else ():
            if transport and not self.admits(peer):
                await transport.disconnect(peer)

    async def _keep(self) -> None:
        await trio.to_thread.run_sync(self._folder.keep_roster, self._roster.state())

    # New members

    async def _welcome(self, peer: str, message: messages.Join) -> messages.Welcome:
        """Raises `MembershipError`."""
        now_us = self._clock.now_us()
        invitation = rules.check_invitation(
            message.invitation, message.chain, self.file.id, now_us, self._roster.revoked_peers()
        )
        if invitation.issuer != self._key.peer:
            raise MembershipError(f"the token is of {invitation.issuer}, which alone counts its uses")
        rules.check_join(invitation, peer, message.proof)
        if self._roster.why(peer):
            raise MembershipError("this node was revoked")
        self._roster.use(invitation.key, invitation.uses, peer)
        expires_us = now_us + invitation.lasts_us if invitation.lasts_us else 0
        member = Member(self.file.id, peer, message.name[:64], invitation.roles, now_us, expires_us)
        chain = self._certify(member)
        self._roster.add(chain, now_us)
        await self._keep()
        log.info("%s (%s) is a member of %s now: %s", member.name, peer, self.file.name, ", ".join(member.roles))
        return messages.Welcome(chain, self.file.chain, _words(self._roster.revoked()))

    def _certify(self, member: Member) -> rules.Chain:
        signed = rules.sign(self._signer(), rules.MEMBER_KIND, member)
        return (signed, *self._signer_chain())

    def _signer(self) -> PrivateKey:
        return self._mesh_key or self._key

    def _signer_chain(self) -> rules.Chain:
        """Empty where the mesh's key is here."""
        return () if self._mesh_key else self.file.chain

    # What the owner asks

    async def ask(self, request: messages.MeshRequest) -> messages.MeshAnswer:
        """Raises `potluck.errors.Error`."""
        match request:
            case messages.AskMembers():
                return self._members()
            case messages.InviteMember():
                return self._invite(request)
            case messages.RevokeMember(peer, why):
                return await self._revoke(peer, why)

    def _members(self) -> messages.Members:
        found = self._roster.members(self._clock.now_us())
        return messages.Members(
            self.file.name, self.file.id, tuple(map(self._facts, found)), len(self._roster.revoked())
        )

    def _facts(self, member: Member) -> messages.MemberFacts:
        peers = self.transport.peers() if self.transport else ()
        by = rules.read_member(self._roster.chain(member.peer)[0])[1]
        connected = member.peer in peers or member.peer == self._key.peer
        return messages.MemberFacts(
            member.peer, member.name, member.roles, member.issued_us, member.expires_us, by, connected
        )

    def _invite(self, request: messages.InviteMember) -> messages.Invited:
        self._require_admin()
        # A relay takes members alone, so none of its addresses is of use to who is to become one.
        known = self.transport.addresses() if self.transport else ()
        addresses = tuple(each for each in known if CIRCUIT not in each)
        if not addresses:
            raise RefusedError("Nobody can reach this node.", fix="Give it an address: potluck up --listen …")
        key = PrivateKey.generate()
        invitation = Invitation(
            self.file.id, key.peer, self._key.peer, tuple(sorted(set(request.roles))), request.uses,
            request.expires_us, request.lasts_us,
        )  # fmt: skip
        try:
            signed = rules.sign(self._signer(), rules.INVITATION_KIND, invitation)
            rules.check_invitation(signed, self._signer_chain(), self.file.id, self._clock.now_us())
        except MembershipError as error:
            raise InvalidError("Nobody could use such a token.", why=str(error)) from None
        token = mesh_token.Token(
            self.file.name, self.file.id, self.file.psk, addresses, signed, self._signer_chain(), key.seed
        )
        return messages.Invited(mesh_token.write(token))

    async def _revoke(self, name: str, why: str) -> messages.MembersRevoked:
        self._require_admin()
        now_us = self._clock.now_us()
        found = [each for each in self._roster.members(now_us) if name in (each.peer, each.name)]
        if len(found) != 1:
            many = "several members have" if found else "no member has"
            raise NotFoundError(f"{many} this name or id: {name}.", fix="Give an id of `potluck mesh members`.")
        if found[0].peer == self._key.peer:
            raise InvalidError("This node cannot revoke itself.", fix="Use potluck mesh leave.")
        gone = [found[0], *self._roster.resting_on(found[0].peer, now_us)]
        facts = tuple(map(self._facts, gone))
        body = Revocation(self.file.id, found[0].peer, now_us, why[: rules.TEXT_MAX])
        revoked = Revoked(rules.sign(self._signer(), rules.REVOCATION_KIND, body), self._signer_chain())
        try:
            fresh = self._roster.revoke(revoked, now_us)
        except MembershipError as error:
            raise RefusedError("The member is not revoked.", why=str(error)) from None
        await self._keep()
        if self.transport:
            await self.transport.publish(self._topic, wire.encode(_words((revoked,))[0]))
        await self._act([fresh] if fresh else [])
        return messages.MembersRevoked(facts)

    def _require_admin(self) -> None:
        if self._mesh_key is None and rules.ADMIN not in self.own.roles:
            raise RefusedError(
                "This node is no admin of the mesh.", fix="Ask an admin, or for a token with --role admin."
            )

    # In the background

    @property
    def _topic(self) -> str:
        return f"/potluck/{self.file.id}/revoked/1"

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hear what others revoke, and part from those whose certificates expire, until cancelled."""
        assert self.transport
        await self.transport.subscribe(self._topic, self._heard)
        task_status.started()
        while True:
            await trio.sleep(LOOK_S)
            await self._part()

    async def _heard(self, _sender: str, data: bytes) -> None:
        await self._hear_revoked((wire.decode(data, messages.RevokedWords),))


def _words(found: tuple[Revoked, ...]) -> tuple[messages.RevokedWords, ...]:
    return tuple(messages.RevokedWords(each.envelope, each.chain) for each in found)


def found_in(home: Path, key: PrivateKey, clock: Clock) -> Membership | None:
    """That of the node whose data folder this is, if it is on a private mesh. Raises `InvalidError`."""
    folder = MeshFolder(home)
    file = folder.load()
    return Membership(folder, file, key, clock) if file else None


def _decoded(data: bytes, kind: UnionType) -> Any:
    try:
        return wire.decode(data, kind)
    except Error as error:
        raise NotAdmittedError(f"an introduction cannot be read: {error.why}") from None
