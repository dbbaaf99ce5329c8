"""What a node offers: the body of a signed, expiring record in the DHT and on the gossip topic."""

from __future__ import annotations

import msgspec

# An offer names at most this many images and warm functions, newest first, so that a record stays below 16 KiB.
OFFER_LIST_MAX = 64
OFFER_BYTES_MAX = 16 << 10

# Eight GPUs cut into seven instances each are 56; an offer names no more.
OFFER_GPUS_MAX = 64

# The processor and so many models of GPUs are shown of each peer; machines have one or two.
SCORES_MAX = 8

# States of a GPU that begin so pass by themselves; any other means that it cannot be used until somebody mends it.
FREE, LEASED, USED, HELD = "free", "leased", "used by the owner", "held back by the owner"
PASSING = (FREE, LEASED, USED, HELD)
# Two nodes on one machine may lend the same GPU, each at its time. To earlier versions it is leased.
NEIGHBOUR = "leased by another node of its machine"
# Of one that the owner does not lend at all.
OFF = "is not lent by its owner"


class GpuOffer(msgspec.Struct, frozen=True, array_like=True):
    """One GPU. `capability` is the compute capability times ten (86 for 8.6); `state` is "free" or why it is not.

    It is "leased", "used by the owner", "held back by the owner" (too warm, say), or what is wrong with it in words.
    `shares` says that parts are lent too.
    """

    uuid: str
    model: str
    memory_mib: int
    memory_free_mib: int
    driver: str = ""
    capability: int = 0
    state: str = "free"
    shares: bool = False


class Score(msgspec.Struct, frozen=True, array_like=True):
    """How fast a node says that a device of its is (`potluck bench`); nobody has to believe it.

    `gpu_model` is as receipts have it, empty for the processor. `compute` is KiB/s of one core for the processor,
    GFLOP/s for a GPU; `memory` MiB/s copied within a GPU, 0 for the processor. See docs/decisions/benchmark.md.
    """

    gpu_model: str
    compute: int
    memory: int = 0


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """One node's offer. Times are Unix microseconds; `sequence` orders offers of one peer and survives restarts.

    `state` is "open", "paused" or "draining"; `slots_free` counts the workers that could start now. `network` lists the
    hosts that functions may reach from here (`potluck.network`).
    """

    peer: str
    name: str
    mesh: str
    sequence: int
    issued_us: int
    expires_us: int
    addresses: tuple[str, ...] = ()
    version: str = ""
    machine: str = "x86_64"
    state: str = "open"
    cpu_milli: int = 0
    cpu_free_milli: int = 0
    memory_mib: int = 0
    memory_free_mib: int = 0
    slots_free: int = 0
    gpus: tuple[GpuOffer, ...] = ()
    images: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    region: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    network: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
