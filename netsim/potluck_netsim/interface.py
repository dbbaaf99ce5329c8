"""What the two sides of leases need of the simulated node that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from potluck.wire.offer import Offer
from potluck_ledger.journal import Journal, Problem
from potluck_ledger.keys import PrivateKey
from potluck_netsim.faults import Faults
from potluck_netsim.network import End, Host, Network
from potluck_netsim.world import World
from potluck_node.core.gpus import Gpu
from potluck_node.core.offers import OfferBook
from potluck_node.core.pools import Capacity
from potluck_node.link import LocalLink

# A lease's conversation: with another node, or of a node with itself.
Link = End | LocalLink


class SimNode(Host, Protocol):
    world: World
    network: Network
    faults: Faults
    key: PrivateKey
    book: OfferBook
    capacity: Capacity
    gpus: tuple[Gpu, ...]
    images: dict[str, None]
    slow: int
    protocol: int

    @property
    def journal(self) -> Journal: ...

    @property
    def now_us(self) -> int:
        """By its own clock, Unix microseconds."""
        ...

    def keep(self, write: Callable[[], None], then: Callable[[Problem], None]) -> None:
        """Write to the journal, in the order of asking, and then say what came of it."""
        ...

    def listen(self) -> None:
        """Hear offers from now on, until no call needs them."""
        ...

    def make_offer(self) -> Offer | None:
        """What the node offers now."""
        ...

    def offer_changed(self) -> None:
        """Tell the mesh, soon."""
        ...

    def open_local(self, lease: str) -> LocalLink:
        """The caller's end of a lease of the node with itself."""
        ...
