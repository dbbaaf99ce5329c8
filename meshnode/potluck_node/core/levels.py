"""How far a peer is trusted: one decision, from the owner's settings and the mesh's membership. Pure.

Everything that depends on trust asks here: whether results may be rebuilt by running code, who gets secrets and
volumes, in which sandbox a peer's functions run, and whether its results are verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

# The most trusted first. `owner`: this node and its owner's others. `lab`: the mesh is the owner's lab, or the peer has
# a certificate of it. `known`: the owner has named the peer. `stranger`: anybody else.
LevelName = Literal["owner", "lab", "known", "stranger"]
LEVELS: tuple[LevelName, ...] = ("owner", "lab", "known", "stranger")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a peer's level lets it do. `why` is in words, for `potluck mesh peers`.

    `code`: its results may be pickles, which run code here. `secrets`: it gets secrets and volumes. `tier` is the
    weakest sandbox that its own functions get here, "" for the node's weakest. `verify` is how its results are checked
    for functions that do not say: "none", or as in `potluck.verify`.
    """

    level: LevelName
    why: str
    code: bool = False
    secrets: bool = False
    tier: str = ""
    verify: str = "none"


# For cores without settings: simulations, and tests.
TRUSTED = Standing("owner", "everybody is trusted", code=True, secrets=True)


@dataclass(frozen=True)
class Levels:
    """`us` is this node. `trust` is the setting: "none", "mesh", or peers. `named` are levels that the owner gave to
    single peers, which go before all else. `is_member` says who has a certificate of our private mesh.

    A certificate says who belongs, not that its machine may run code as us: that takes a word of the owner's own, in
    either setting.
    """

    us: str
    trust: str | tuple[str, ...] = "none"
    named: Mapping[str, LevelName] = field(default_factory=dict)
    is_member: Callable[[str], bool] = lambda peer: False
    stranger_tier: str = ""
    stranger_verify: str = "none"

    def of(self, peer: str) -> Standing:
        """The standing of any peer, now."""
        if peer == self.us:
            return Standing("owner", "this node", code=True, secrets=True)
        if level := self.named.get(peer):
            return self._named(level)
        if self.trust == "mesh":
            return Standing("lab", 'trust = "mesh"', code=True, secrets=True)
        if self.trust != "none" and peer in self.trust:
            return Standing("known", "named in trust", code=True, secrets=True)
        if self.is_member(peer):
            return Standing("lab", "a member by certificate, whose results are data")
        return self._stranger("nobody has named it")

    def _named(self, level: LevelName) -> Standing:
        if level == "stranger":
            return self._stranger("named in trust_levels")
        return Standing(level, "named in trust_levels", code=True, secrets=True)

    def _stranger(self, why: str) -> Standing:
        return Standing("stranger", why, tier=self.stranger_tier, verify=self.stranger_verify)

    def code(self, peer: str) -> bool:
        """Whether its results may be pickles."""
        return self.of(peer).code

    def secrets(self, peer: str) -> bool:
        """Whether it gets secrets and volumes."""
        return self.of(peer).secrets
