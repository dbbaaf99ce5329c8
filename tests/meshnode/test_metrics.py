"""What Prometheus reads: the text, and the server that gives it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
import trio

from potluck.errors import InvalidError
from potluck.wire.control import AccountStatus, CallStatus, PeerStatus, Status, WorkerStatus
from potluck.wire.metrics import CONTENT_TYPE, exposition
from potluck.wire.offer import GpuOffer
from potluck_node.metrics import TIMEOUT_S, Metrics

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana.json"

STATUS = Status(
    1, "ann", "12D3Koo", "0.1", 'lab "two"\n', 10_000_000, 4_000_000, True, "", "bwrap",
    cpu_milli=1500, memory_mib=2, gpus=(GpuOffer("GPU-1", "A10G", 24_000, 1000, state="leased"),),
    workers=(WorkerStatus("w", "f", "c", "idle", 0), WorkerStatus("x", "f", "c", "idle", 0)),
    calls=(CallStatus("1", "f", 5, 2, ""),), peers=(PeerStatus("p", "bob", "open", True, 1, 1, 1),),
    accounts=(AccountStatus("p", 2_500_000, 0, 3, 0),), entries=7,
)  # fmt: skip


def parsed(text: str) -> dict[str, float]:
    """Each line is a comment or a sample; each sample has a type."""
    found, types = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            types.add(line.split()[2])
        if not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+)(\{([a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)', line)
            assert match, line
            assert match[1] in types
            found[match[1] + (match[2] or "")] = float(match[4])
    return found


def test_what_is_told() -> None:
    found = parsed(exposition(STATUS))
    assert found['potluck_info{name="ann",peer="12D3Koo",mesh="lab \\"two\\"\\n",version="0.1"}'] == 1
    assert found["potluck_uptime_seconds"] == 6
    assert (found["potluck_cpu_cores"], found["potluck_memory_bytes"]) == (1.5, 2 << 20)
    assert found['potluck_workers{state="idle"}'] == 2
    assert (found["potluck_call_inputs"], found["potluck_call_inputs_waiting"]) == (5, 2)
    assert found['potluck_given_seconds_total{peer="p"}'] == 2.5
    assert found['potluck_gpu_free{gpu="GPU-1",model="A10G"}'] == 0
    assert found["potluck_journal_entries"] == 7


def test_the_dashboard_asks_for_nothing_else() -> None:
    names = set(re.findall(r"potluck_[a-z_]+", exposition(STATUS)))
    asked = set(re.findall(r"potluck_[a-z_]+", DASHBOARD.read_text()))
    assert asked
    assert asked <= names
    assert json.loads(DASHBOARD.read_text())["title"] == "Potluck"


async def test_it_answers_over_http() -> None:
    metrics = Metrics("127.0.0.1:0", lambda: "potluck_offering 1\n")
    async with trio.open_nursery() as nursery, httpx.AsyncClient() as client:
        await nursery.start(metrics.serve)
        base = f"http://127.0.0.1:{metrics.port}"
        answer = await client.get(f"{base}/metrics")
        assert (answer.status_code, answer.text) == (200, "potluck_offering 1\n")
        assert answer.headers["content-type"] == CONTENT_TYPE
        assert (await client.get(f"{base}/")).status_code == 404
        assert (await client.post(f"{base}/metrics")).status_code == 404
        # Nonsense ends its connection, and nothing else.
        stream = await trio.open_tcp_stream("127.0.0.1", metrics.port)
        await stream.send_all(b"\x00\x01\r\n\r\n")
        with trio.fail_after(TIMEOUT_S):
            assert await stream.receive_some(1) == b""
        assert (await client.get(f"{base}/metrics")).status_code == 200
        nursery.cancel_scope.cancel()


async def test_an_address_that_is_none_or_taken() -> None:
    for bad in ("9478", "host:", "h:99999", "h:x"):
        with pytest.raises(InvalidError, match="HOST:PORT"):
            Metrics(bad, str)
    await Metrics("none", str).serve()
    async with trio.open_nursery() as nursery:
        first = Metrics("127.0.0.1:0", str)
        await nursery.start(first.serve)
        await Metrics(f"127.0.0.1:{first.port}", str).serve()
        nursery.cancel_scope.cancel()
