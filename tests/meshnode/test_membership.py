"""The door of a private mesh, with real libp2p: who gets in, and what is tried by whoever does not."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from tests.conformance import check_transport as suite
from tests.meshnode.clocks import HandClock
from tests.meshnode.transport.test_libp2p import echoes, make, serving

from potluck import wire
from potluck.errors import InvalidError, NotFoundError, RefusedError
from potluck.wire import membership as messages
from potluck_ledger import membership as rules
from potluck_ledger.keys import PrivateKey
from potluck_node import mesh_token
from potluck_node.membership import found_in
from potluck_node.mesh_folder import MeshFile, MeshFolder
from potluck_node.mesh_setup import ask
from potluck_node.transport.interface import PeerUnreachableError

pytestmark = pytest.mark.e2e

DAY_US = 24 * 3600 * 1_000_000


class Lab:
    """A founder's membership, and its clock."""

    def __init__(self, folder):
        self.folder, self.clock = folder, HandClock()
        self.key = PrivateKey.generate()
        self.file = MeshFolder(folder / "ann").create("lab", self.key, "ann", self.clock.now_us())
        self.ann = found_in(folder / "ann", self.key, self.clock)
        self.mesh_key = MeshFolder(folder / "ann").key()

    def node(self, membership, key):
        node = make(key=key, psk=self.file.psk, admission=membership)
        if hasattr(membership, "transport"):
            membership.transport = node
        return node

    def certificate(self, key, signer=None, **fields):
        given = {"mesh": self.file.id, "peer": key.peer, "name": "bob", "roles": ("caller", "provider")}
        member = rules.Member(**(given | {"issued_us": self.clock.now_us()} | fields))
        return rules.sign(signer or self.mesh_key, rules.MEMBER_KIND, member)

    def member(self, name, chain, key):
        """The membership of another node, kept in a folder of its own."""
        file = MeshFile("lab", self.file.id, self.file.psk, chain)
        MeshFolder(self.folder / name).join(file, key.peer, self.clock.now_us())
        return found_in(self.folder / name, key, self.clock)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


class Impostor:
    """Says whatever it likes, and believes everything."""

    def __init__(self, *chain):
        self.chain = chain

    def admits(self, peer):
        return True

    async def introduce(self, stream):
        await stream.send(wire.encode(messages.Introduce(tuple(self.chain))))
        await stream.receive()

    async def answer(self, stream):
        await stream.receive()
        await stream.send(wire.encode(messages.Introduce(tuple(self.chain))))


@asynccontextmanager
async def shut_out(inside, outside):
    """Neither way leads to a stream."""
    async with serving(inside, outside):
        with pytest.raises(PeerUnreachableError):
            await outside.connect(inside.addresses()[0])
            stream = await outside.open(inside.peer, suite.ECHO)
            await stream.send(b"hello")
            with trio.fail_after(suite.SETTLE_S):
                await suite.ended(stream)
            raise PeerUnreachableError("the stream has ended")
        with pytest.raises(PeerUnreachableError):
            await inside.connect(outside.addresses()[0])
        assert inside.peers() == ()
        yield


async def test_members_meet(lab):
    bob = PrivateKey.generate()
    theirs = lab.member("bob", (lab.certificate(bob),), bob)
    a, b = lab.node(lab.ann, lab.key), lab.node(theirs, bob)
    async with serving(a, b):
        await a.connect(b.addresses()[0])
        await echoes(a, b)
        await echoes(b, a)
        assert {each.name for each in lab.ann._members().members} == {"ann", "bob"}


def stolen(lab, key):
    return [lab.file.chain[0]]


def expired(lab, key):
    return [lab.certificate(key, issued_us=lab.clock.now_us() - 2 * DAY_US, expires_us=lab.clock.now_us() - 1)]


def forged(lab, key):
    return [lab.certificate(key, signer=key)]


def forged_in_a_chain(lab, key):
    return [lab.certificate(key, signer=key), lab.file.chain[0]]


def of_another_mesh(lab, key):
    other = PrivateKey.generate()
    return [lab.certificate(key, signer=other, mesh=other.peer)]


def revoked(lab, key):
    body = rules.Revocation(lab.file.id, key.peer, lab.clock.now_us(), "")
    lab.ann._roster.revoke(rules.Revoked(rules.sign(lab.mesh_key, rules.REVOCATION_KIND, body)), lab.clock.now_us())
    return [lab.certificate(key)]


def none_at_all(lab, key):
    return []


CASES = [stolen, expired, forged, forged_in_a_chain, of_another_mesh, revoked, none_at_all]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_no_stream_without_a_valid_certificate(lab, case):
    key = PrivateKey.generate()
    outside = lab.node(Impostor(*case(lab, key)), key)
    async with shut_out(lab.node(lab.ann, lab.key), outside):
        pass


async def test_of_a_stranger_no_revocation_is_heard(lab):
    """Not even one that holds: checking many costs time."""
    key = PrivateKey.generate()
    body = rules.Revocation(lab.file.id, PrivateKey.generate().peer, lab.clock.now_us(), "")
    words = messages.RevokedWords(rules.sign(lab.mesh_key, rules.REVOCATION_KIND, body))
    with pytest.raises(rules.MembershipError, match="not for this mesh"):
        await lab.ann._hear(key.peer, messages.Introduce((lab.certificate(key, signer=key),), (words,)))
    assert lab.ann._roster.revoked() == ()
    await lab.ann._hear(key.peer, messages.Introduce((lab.certificate(key),), (words,)))
    assert len(lab.ann._roster.revoked()) == 1


async def test_whoever_brings_their_own_end_is_refused(lab):
    key = PrivateKey.generate()
    body = rules.Revocation(lab.file.id, key.peer, lab.clock.now_us(), "")
    words = messages.RevokedWords(rules.sign(lab.mesh_key, rules.REVOCATION_KIND, body))
    with pytest.raises(rules.MembershipError, match="revoked"):
        await lab.ann._hear(key.peer, messages.Introduce((lab.certificate(key),), (words,)))


async def test_the_wrong_key_in_front_does_not_even_get_to_the_door(lab):
    key = PrivateKey.generate()
    outside = make(key=key, psk=bytes(32), admission=Impostor(lab.certificate(key)))
    async with shut_out(lab.node(lab.ann, lab.key), outside):
        pass


async def test_whoever_is_revoked_or_expires_loses_what_is_open(lab):
    bob, eve = PrivateKey.generate(), PrivateKey.generate()
    theirs = lab.member("bob", (lab.certificate(bob),), bob)
    hers = lab.member("eve", (lab.certificate(eve, name="eve", expires_us=lab.clock.now_us() + DAY_US),), eve)
    a, b, e = lab.node(lab.ann, lab.key), lab.node(theirs, bob), lab.node(hers, eve)
    async with serving(a, b, e):
        await a.connect(b.addresses()[0])
        await a.connect(e.addresses()[0])
        to_bob, to_eve = await b.open(a.peer, suite.SILENT), await e.open(a.peer, suite.SILENT)
        gone = await lab.ann.ask(messages.RevokeMember("bob", "left"))
        assert [each.name for each in gone.members] == ["bob"]
        await suite.ended(to_bob)
        assert a.peers() == (eve.peer,)
        lab.clock.advance(2 * DAY_US)
        assert a.peers() == ()
        await lab.ann._part()
        await suite.ended(to_eve)
        with pytest.raises(PeerUnreachableError):
            await e.open(a.peer, suite.ECHO)
    # It stays so over a restart.
    again = found_in(lab.folder / "ann", lab.key, lab.clock)
    assert again.roles(bob.peer) == ()
    assert not again.may_offer(bob.peer)


async def test_a_token_makes_members_as_often_as_it_says(lab):
    a = lab.node(lab.ann, lab.key)
    async with serving(a):
        request = messages.InviteMember(("caller",), 1, lab.clock.now_us() + DAY_US)
        token = mesh_token.read((await lab.ann.ask(request)).token)
        bob, eve = PrivateKey.generate(), PrivateKey.generate()
        for _ in range(2):
            welcome = await ask(token, bob, "bob")
            assert rules.check_chain(welcome.member, lab.file.id, lab.clock.now_us())[0].roles == ("caller",)
        with pytest.raises(Exception, match="1 times already"):
            await ask(token, eve, "eve")
        lab.clock.advance(2 * DAY_US)
        with pytest.raises(Exception, match="expired"):
            await ask(token, bob, "bob")
    assert lab.ann.roles(bob.peer) == ("caller",)


async def test_what_admins_alone_may_do_and_what_cannot_be(lab):
    bob = PrivateKey.generate()
    theirs = lab.member("bob", (lab.certificate(bob),), bob)
    soon = lab.clock.now_us() + DAY_US
    for request in (messages.InviteMember(("caller",), 1, soon), messages.RevokeMember("ann")):
        with pytest.raises(RefusedError, match="no admin"):
            await theirs.ask(request)
    with pytest.raises(RefusedError, match="Nobody can reach"):
        await lab.ann.ask(messages.InviteMember(("caller",), 1, soon))
    with pytest.raises(NotFoundError):
        await lab.ann.ask(messages.RevokeMember("nobody"))
    with pytest.raises(InvalidError, match="itself"):
        await lab.ann.ask(messages.RevokeMember("ann"))
    async with serving(lab.node(lab.ann, lab.key)):
        for bad in (messages.InviteMember(("king",), 1, soon), messages.InviteMember(("caller",), 0, soon)):
            with pytest.raises(InvalidError, match="Nobody could use"):
                await lab.ann.ask(bad)


def test_files_that_do_not_hold_are_said(lab):
    key = PrivateKey.generate()
    for chain in ((lab.certificate(key, signer=key),), (lab.certificate(lab.key),)):
        file = MeshFile("lab", lab.file.id, bytes(32), chain)
        with pytest.raises(InvalidError, match=r"does not hold|another node's"):
            MeshFolder(lab.folder / "eve").join(file, key.peer, lab.clock.now_us())
    (lab.folder / "ann" / "mesh" / "mesh.json").write_text("{")
    with pytest.raises(InvalidError, match="cannot be used"):
        found_in(lab.folder / "ann", lab.key, lab.clock)
