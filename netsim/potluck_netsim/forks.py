"""A lab in which some nodes keep two journals: they are proven and banned by all honest ones, and no witness cosigns a
second history."""

from __future__ import annotations

from dataclasses import dataclass, field

from potluck_netsim import facts
from potluck_netsim.journals import Forking, Watching
from potluck_netsim.node import Node
from potluck_netsim.report import Report
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.world import Checker, Fact, Trace, World


@dataclass
class ForksAreProven:
    """`honest` and `forking` are names of nodes."""

    promise = "who keeps two journals is found out by everybody, and nobody else is"
    honest: frozenset[str]
    forking: frozenset[str]
    convicted: dict[str, set[str]] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.Convicted):
            if fact.peer in self.honest:
                world.broken(self.promise, f"{fact.node} convicts {fact.peer}", fact.node, fact.peer)
            self.convicted.setdefault(fact.peer, set()).add(fact.node)
        elif isinstance(fact, facts.Doubted) and fact.node in self.honest:
            world.broken(self.promise, f"{fact.node} is told that its journal is another", fact.node)
        elif isinstance(fact, facts.Histories) and is_fork(fact):
            for node in sorted(self.honest - self.convicted.get(fact.node, set())):
                world.broken(self.promise, f"{node} does not know what {fact.node} does", node, fact.node)


def tell_histories(lab: Lab) -> None:
    """Show the checkers, at the end, what those who fork have written."""
    for node in lab.nodes:
        if isinstance(node, Forking):
            lab.world.fact(node.histories())


def is_fork(fact: facts.Histories) -> bool:
    """Whether neither of the two is the beginning of the other."""
    one, other = fact.digests
    return bool(one - other and other - one)


@dataclass
class WitnessesSignOneHistory:
    """Neither does one of them sign two, nor do enough of them together."""

    promise = "witnesses sign one history of each owner"
    signed: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)
    witnessed: dict[str, set[bytes]] = field(default_factory=dict)
    refused: int = 0

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.Cosigned):
            self.signed.setdefault((fact.node, fact.owner), set()).add(fact.head)
        elif isinstance(fact, facts.Witnessed):
            self.witnessed.setdefault(fact.owner, set()).add(fact.head)
        elif isinstance(fact, facts.NotCosigned):
            self.refused += 1
        elif isinstance(fact, facts.Histories):
            for (witness, owner), heads in self.signed.items():
                if owner == fact.node and not _is_one(heads, fact):
                    world.broken(self.promise, f"{witness} has signed two of {owner}", witness, owner)
            if not _is_one(self.witnessed.get(fact.node, set()), fact):
                world.broken(self.promise, f"{fact.node} has two that enough witnesses signed", fact.node)


def _is_one(heads: set[bytes], fact: facts.Histories) -> bool:
    return any(heads <= digests for digests in fact.digests)


class Forks(Lab):
    """Every fourth node forks, and none of them is a witness: those are the first three."""

    def __init__(self, options: Options, write: Trace = None) -> None:
        self.witnesses = WitnessesSignOneHistory()
        super().__init__(options, write)

    def _node(self, number: int) -> Node:
        return self._made(number, Forking if number % 4 == 3 else Watching)

    def _checkers(self) -> list[Checker]:
        forking = frozenset(node.name for node in self.nodes if isinstance(node, Forking))
        honest = frozenset(node.name for node in self.nodes) - forking
        self.proven = ForksAreProven(honest, forking)
        return [self.proven, self.witnesses]

    def run(self) -> Report:
        """Raises `PromiseBroken`."""
        report = super().run()
        tell_histories(self)
        return report

    def convicted(self) -> list[str]:
        """Names of nodes, by anybody."""
        return sorted(self.proven.convicted)
