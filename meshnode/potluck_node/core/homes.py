"""Which peer a worker is on, for inputs that want the one that answered them before. Pure."""

from __future__ import annotations

from collections import OrderedDict

# Workers that are remembered: more than a mesh has at once.
WORKERS_MAX = 4096


class Homes:
    """A worker's name → its peer, the last ones seen."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, str] = OrderedDict()

    def note(self, worker: str, peer: str) -> None:
        """A worker on a peer has begun something."""
        self._peers[worker] = peer
        self._peers.move_to_end(worker)
        if len(self._peers) > WORKERS_MAX:
            self._peers.popitem(last=False)

    def of(self, worker: str) -> str:
        """Its peer, "" when that is not known."""
        return self._peers.get(worker, "")

    def forget(self, peer: str) -> None:
        """A peer is gone, or has no room."""
        for worker in [worker for worker, home in self._peers.items() if home == peer]:
            del self._peers[worker]
