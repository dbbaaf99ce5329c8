"""A private mesh: members show each other their certificates when they meet, some are revoked, and what was revoked is
told by gossip and at every meeting. Certificates and rosters are the ledger's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

from potluck_ledger import membership as rules
from potluck_ledger.keys import PrivateKey
from potluck_ledger.membership import Member, MembershipError, Revocation, Revoked
from potluck_ledger.roster import Roster, RosterState
from potluck_netsim import facts
from potluck_netsim.days import Everyday, served
from potluck_netsim.faults import Faults
from potluck_netsim.network import End
from potluck_netsim.node import Node
from potluck_netsim.report import Goal, Report
from potluck_netsim.scenarios import Options
from potluck_netsim.world import START_US, Checker, Fact, Trace, World
from potluck_node.core import events as ev

ROLES = (rules.CALLER, rules.PROVIDER)
# Every third is revoked, but for the first, which is the admin; at most so many.
REVOKED_MAX = 3
# How often a node makes a connection, or makes one anew.
MEET_US = 30_000_000


class Enrolled(Node):
    """A member. What it knows of others outlives its deaths, as it does on a real disk."""

    roster: Roster
    chain: rules.Chain = ()
    # Whether it was revoked.
    outcast = False

    def join(self, mesh_key: PrivateKey) -> None:
        """By the mesh's key, as whoever founded it does."""
        member = Member(mesh_key.peer, self.peer, self.name, tuple(sorted(ROLES)), self.world.now_us)
        self.chain = (rules.sign(mesh_key, rules.MEMBER_KIND, member),)
        self.roster = Roster(mesh_key.peer, RosterState(), self.now_us)
        self.roster.add(self.chain, self.now_us)
        self.book.may_offer = self._may_offer

    def be_born(self) -> None:
        super().be_born()
        self.book.may_offer = self._may_offer
        self.later(self.world.dice.randrange(MEET_US), self._meet)

    def _may_offer(self, peer: str) -> bool:
        """As the node's `membership.py`: who was not met yet shows what it is when it is reached."""
        return self.roster.member(peer, self.now_us) is not None or not self.roster.knows(peer)

    def accept(self, end: End) -> None:
        """A connection is opened for each stream here: the two introduce themselves to each other."""
        other = end.other.host if end.other else None
        if not isinstance(other, Enrolled) or not (self.meets(other) and other.meets(self)):
            end.finish()
            return
        super().accept(end)

    def meets(self, other: Enrolled) -> bool:
        """Hear its introduction; whether it is a member."""
        for found in other.roster.revoked():
            self.hear(found)
        try:
            self.roster.add(other.chain, self.now_us)
        except MembershipError:
            return False
        return self.roster.member(other.peer, self.now_us) is not None

    def hear(self, found: Revoked) -> None:
        """Of a revocation: all that is done with that peer ends. Who is revoked goes on as if it had not been."""
        revocation = None if self.outcast else self.roster.revoke(found, self.now_us)
        if revocation is None:
            return
        peer = revocation.peer
        self.world.tell(self.name, "hears who is no member any more", revocation)
        self.world.fact(facts.HeardRevoked(self.name, peer))
        self.book.forget(peer)
        self.network.part(self, peer)
        self.caller.submit(ev.OffersChanged())
        self.tell(found)

    def tell(self, found: Revoked) -> None:
        """Gossip: each hands it on once."""
        for peer, other in self.network.hosts.items():
            heard = peer != self.peer and not self.world.chance(self.faults.gossip_lost_milli)
            if heard and isinstance(other, Enrolled):
                self.network.reach(self, peer, partial(other.hear, found))

    def _meet(self) -> None:
        """A node keeps some connections, and makes them anew."""
        peers = [peer for peer in self.network.hosts if peer != self.peer]
        other = self.network.hosts[self.world.dice.choice(peers)]
        apart = self.network.blocked(self.peer, other.peer, self.world.now_us)
        meets = isinstance(other, Enrolled) and other.alive and not apart
        if meets and not (self.meets(cast(Enrolled, other)) and cast(Enrolled, other).meets(self)):
            self.network.part(self, other.peer)
        self.later(MEET_US, self._meet)


@dataclass
class RevokedGetNothing:
    """`names` has those of peers."""

    promise = "who is no member any more gets nothing, and everybody learns of it"
    names: dict[str, str]
    heard: set[tuple[str, str]] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.HeardRevoked):
            self.revoked.add(self.names[fact.peer])
            self.heard.add((fact.node, self.names[fact.peer]))
        elif isinstance(fact, facts.RunBegan | facts.LeaseWanted):
            peer = self.names[fact.caller if isinstance(fact, facts.RunBegan) else fact.peer]
            if (fact.node, peer) in self.heard:
                what = "works for" if isinstance(fact, facts.RunBegan) else "asks"
                world.broken(self.promise, f"{fact.node} {what} {peer}, who is no member", fact.node, peer)
        elif isinstance(fact, facts.Reckoned):
            for node in sorted(set(self.names.values()) - self.revoked):
                for peer in sorted(each for each in self.revoked if (node, each) not in self.heard):
                    world.broken(self.promise, f"{node} does not know of {peer}", node, peer)


class Members(Everyday):
    """A private mesh of thirty, whose founder revokes some while it works, is cut in two, and machines die."""

    usual_nodes, usual_minutes = 30, 10.0

    def __init__(self, options: Options, write: Trace = None) -> None:
        super().__init__(options, write)
        self._mesh_key = PrivateKey(self.world.dice.randbytes(32))
        for node in self.nodes:
            cast(Enrolled, node).join(self._mesh_key)

    @classmethod
    def faults_of(cls, seed: int) -> Faults:
        """Also such that keep word from getting around."""
        drawn = super().faults_of(seed)
        return replace(drawn, deaths_per_hour=20, cuts_per_hour=30, cut_us=20_000_000, gossip_lost_milli=200)

    def _node(self, number: int) -> Node:
        return self._made(number, Enrolled)

    def _checkers(self) -> list[Checker]:
        names = {node.peer: node.name for node in self.nodes}
        return [*super()._checkers(), RevokedGetNothing(names)]

    def _stage(self) -> None:
        third_us = (self.ends_us - START_US) // 3
        for node in self.nodes[2::3][:REVOKED_MAX]:
            self.world.after(third_us + self.world.dice.randrange(third_us), partial(self._revoke, node))

    def _revoke(self, node: Node) -> None:
        """By whoever has the mesh's key."""
        founder = cast(Enrolled, self.nodes[0])
        if not founder.alive:
            self.world.after(MEET_US, partial(self._revoke, node))
            return
        cast(Enrolled, node).outcast = True
        body = Revocation(self._mesh_key.peer, node.peer, self.world.now_us, "it left")
        founder.hear(Revoked(rules.sign(self._mesh_key, rules.REVOCATION_KIND, body)))

    def _cease(self) -> None:
        """Of who is no member nothing is promised any more."""
        super()._cease()
        for node in self.nodes:
            if cast(Enrolled, node).outcast:
                node.die(unplugged=False)

    def goals(self, report: Report) -> Iterator[Goal]:
        """Calls of those who are no members any more find nobody, and count as not served."""
        yield served(report, 850)
