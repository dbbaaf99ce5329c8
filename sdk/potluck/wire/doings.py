"""Who does what on a mesh: what members ask each other, and clients their node, for `potluck mesh status`."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message

# Of one machine: a worker takes about 200 bytes, and a node waits for fewer callers than it has places to wait.
WORKERS_MAX, WAITING_MAX = 1000, 256
# Nodes of one answer to a client: with those above, less than the largest frame.
NODES_MAX = 64


class AskDoings(Message, frozen=True):
    """One peer to another. Answered by `Doings`."""


class Running(msgspec.Struct, frozen=True, array_like=True):
    """A worker. `state` is starting, idle or running; since `age_us`, microseconds. `gpus` counts what it holds."""

    function: str
    caller: str
    state: str
    age_us: int
    gpus: int = 0


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """A caller that found no room; last `age_us` ago."""

    function: str
    caller: str
    age_us: int


class Doings(Message, frozen=True):
    """`problem` says why there is nothing, for whoever may not know."""

    state: str = ""
    workers: tuple[Running, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    queued: int = 0
    problem: str = ""


class NodeDoings(msgspec.Struct, frozen=True, array_like=True):
    """One node of the mesh, by its offer and its own words. CPU is in thousandths."""

    peer: str
    name: str
    labels: tuple[tuple[str, str], ...]
    gpus: tuple[str, ...]
    gpus_free: int
    cpu_milli: int
    cpu_free_milli: int
    doings: Doings


class AskMeshDoings(Message, frozen=True):
    """Answered by `MeshDoings`."""

    question: int


class MeshDoings(Message, frozen=True):
    """This node first. `names` are those of callers, as far as they are known; `left_out` counts nodes beyond
    `NODES_MAX`."""

    question: int
    mesh: str
    nodes: tuple[NodeDoings, ...]
    names: dict[str, str]
    left_out: int = 0
