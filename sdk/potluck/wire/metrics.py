"""A node's status as Prometheus reads it: its text format, version 0.0.4 (prometheus.io, "Exposition formats")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from potluck.wire.control import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Labels and a value.
Sample = tuple[dict[str, str], float]


def exposition(status: Status) -> str:
    """All metrics. Seconds and bytes, as Prometheus wants it; totals only grow."""
    lines: list[str] = []
    for name, kind, text, samples in _families(status):
        lines += [f"# HELP potluck_{name} {text}", f"# TYPE potluck_{name} {kind}"]
        lines += [f"potluck_{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
    return "\n".join([*lines, ""])


def _families(status: Status) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    names = {"name": status.name, "peer": status.peer, "mesh": status.mesh, "version": status.version}
    yield "info", "gauge", "Which node this is.", [(names, 1)]
    yield _one("uptime_seconds", "Since the node started.", (status.now_us - status.started_us) / 1e6)
    yield _one("offering", "Whether functions of others run here.", status.offering)
    yield _one("paused", "Whether the owner takes no work now.", bool(status.paused))
    yield _one("warning", "Whether there is something that the owner should mend.", bool(status.warning))
    yield _one("cpu_cores", "Lent.", status.cpu_milli / 1000)
    yield _one("cpu_free_cores", "Of those, free.", status.cpu_free_milli / 1000)
    yield _one("memory_bytes", "Lent.", status.memory_mib << 20)
    yield _one("memory_free_bytes", "Of those, free.", status.memory_free_mib << 20)
    yield from _gpus(status)
    states = Counter(worker.state for worker in status.workers)
    yield "workers", "gauge", "By what they do.", [({"state": state}, states[state]) for state in sorted(states)]
    yield _one("call_inputs", "Of calls from here that are open.", sum(call.inputs for call in status.calls))
    yield _one("call_inputs_waiting", "Of those, not sent yet.", sum(call.waiting for call in status.calls))
    yield _one("peers", "Known.", len(status.peers))
    yield _one("peers_connected", "Of those, connected.", sum(peer.connected for peer in status.peers))
    yield from _accounts(status)
    yield _one("images", "Held.", status.images)
    yield _one("store_bytes", "Of the image store.", status.store_bytes)
    yield _one("journal_entries", "Of this node's journal.", status.entries)


def _gpus(status: Status) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    gpus = [({"gpu": gpu.uuid, "model": gpu.model}, gpu) for gpu in status.gpus]
    yield "gpu_memory_bytes", "gauge", "Of each GPU.", [(labels, gpu.memory_mib << 20) for labels, gpu in gpus]
    free = [(labels, gpu.memory_free_mib << 20) for labels, gpu in gpus]
    yield "gpu_memory_free_bytes", "gauge", "Of each GPU, free.", free
    yield "gpu_free", "gauge", "Whether it can be leased now.", [(labels, gpu.state == "free") for labels, gpu in gpus]


def _accounts(status: Status) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    all_ = [({"peer": each.peer}, each) for each in status.accounts]
    yield "given_seconds_total", "counter", "Leased to a peer.", [(peer, each.given_us / 1e6) for peer, each in all_]
    yield "used_seconds_total", "counter", "Leased from a peer.", [(peer, each.used_us / 1e6) for peer, each in all_]
    yield "inputs_given_total", "counter", "Run for a peer.", [(peer, each.inputs_given) for peer, each in all_]
    yield "inputs_used_total", "counter", "Run by a peer.", [(peer, each.inputs_used) for peer, each in all_]


def _one(name: str, text: str, value: float) -> tuple[str, str, str, Iterable[Sample]]:
    return name, "gauge", text, [({}, value)]


def _labels(labels: dict[str, str]) -> str:
    """Names come from strangers: what would end a label is escaped."""
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
