"""The GPUs of a provider's workers: who holds which, and what each lease used of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from potluck_node.core.gpu_meter import GpuMeters
from potluck_node.core.gpus import GpuDesk


class GpuRoom:
    """A worker holds its GPUs until its sandbox is gone, which may be after its pool was closed."""

    def __init__(self, share: bool) -> None:
        self.desk, self.meters = GpuDesk(share), GpuMeters()
        self._pools: dict[str, str] = {}

    def take(self, worker: str, pool: str, requests: Sequence[str]) -> tuple[str, ...] | None:
        """The uuids of what a worker to be started gets: nothing when it asks for nothing, None when it must wait."""
        if not requests:
            return ()
        hold = self.desk.take(worker, requests)
        if hold is None:
            return None
        self._pools[worker] = pool
        self.meters.start(worker, hold)
        return tuple(gpu.uuid for gpu in hold.gpus)

    def free(self, worker: str) -> bool:
        """Its sandbox is gone; returns whether that frees anything."""
        if self._pools.pop(worker, None) is None:
            return False
        self.desk.release(worker)
        self.meters.end(worker)
        return True

    def free_pool(self, pool: str) -> bool:
        """All of a pool's sandboxes are gone."""
        workers = self.workers(pool)
        for worker in workers:
            self.free(worker)
        return bool(workers)

    def workers(self, pool: str) -> list[str]:
        """Workers of a pool that hold GPUs."""
        return [worker for worker, its in self._pools.items() if its == pool]

    def pool_of(self, worker: str) -> str:
        """The pool of a worker that holds GPUs, or ""."""
        return self._pools.get(worker, "")
