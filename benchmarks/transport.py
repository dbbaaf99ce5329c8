"""How fast streams between two nodes are, in two processes on loopback: lanes, streams of libp2p, and bare TLS. JSON.

"over_tls" is the speed over that of bare TLS (trio's) in the same run. Run: python benchmarks/transport.py [repeats]
"""

from __future__ import annotations

import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio
from _common import report

from potluck_ledger.keys import PrivateKey
from potluck_node.heap import keep_heap
from potluck_node.transport.interface import Stream
from potluck_node.transport.lane.certificate import make_certificate, tls_context
from potluck_node.transport.libp2p import Libp2pTransport

ECHO, SINK = "/potluck/bench/echo/1", "/potluck/bench/sink/1"
SMALL, ROUND_TRIPS = bytes(100), 2000
PIECE, BULK_BYTES = bytes(1 << 20), 256 << 20


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


async def sink(stream: Stream) -> None:
    """Swallow `BULK_BYTES`, then answer, again and again."""
    while True:
        received = 0
        while received < BULK_BYTES:
            received += len(await stream.receive())
        await stream.send(b"all")


async def p50_ms(exchange: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        await exchange()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


async def unix_p50_ms() -> float:
    """The floor: 100 bytes there and back through trio and a Unix socket pair."""
    near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())

    async def answer() -> None:
        while data := await far.receive_some():
            await far.send_all(data)

    async def exchange() -> None:
        await near.send_all(SMALL)
        await near.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        result = await p50_ms(exchange)
        await near.aclose()
    return result


async def bulk_mb_s(send: Callable[[bytes], Awaitable[object]], answered: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    for _ in range(BULK_BYTES // len(PIECE)):
        await send(PIECE)
    await answered()
    return BULK_BYTES / (time.perf_counter() - start) / 1e6


def transport(lane: bool) -> Libp2pTransport:
    return Libp2pTransport(PrivateKey.generate(), ("/ip4/127.0.0.1/tcp/0",), (), lambda key, value: None, lane=lane)


# The far side, a process of its own


async def tls_far(certificate: Path, tcp: trio.SocketStream) -> None:
    """Bare TLS: the first byte says what is measured."""
    own = tls_files(certificate, server_side=True)
    stream = trio.SSLStream(tcp, own, server_side=True)
    kind = await stream.receive_some(1)
    while kind == b"e":
        await stream.send_all(await stream.receive_some(1 << 20))
    while True:
        received = 0
        while received < BULK_BYTES:
            received += len(await stream.receive_some(1 << 20))
        await stream.send_all(b"all")


def tls_files(certificate: Path, *, server_side: bool) -> ssl.SSLContext:
    """Both ends of bare TLS have the same certificate."""
    from potluck_node.transport.lane.certificate import Certificate

    pem = certificate.read_bytes()
    der = ssl.PEM_cert_to_DER_cert(pem.decode().partition("-----BEGIN PRIVATE KEY")[0])
    return tls_context(Certificate(der, pem), der, server_side=server_side)


async def far(certificate: Path) -> None:
    async def bare(tcp: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await tls_far(certificate, tcp)

    async with trio.open_nursery() as nursery:
        nodes = [transport(lane) for lane in (True, False)]
        for node in nodes:
            node.handle(ECHO, echo)
            node.handle(SINK, sink)
            await nursery.start(node.serve)
        listeners: Any = await nursery.start(trio.serve_tcp, bare, 0)
        print(*(node.addresses()[0] for node in nodes), listeners[0].socket.getsockname()[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


# The near side


async def through(node: Libp2pTransport, peer: str) -> tuple[float, float]:
    """Round trip (ms) and bulk (MB/s)."""
    stream = await node.open(peer, ECHO)

    async def exchange() -> None:
        await stream.send(SMALL)
        await stream.receive()

    trip = await p50_ms(exchange)
    await stream.aclose()
    stream = await node.open(peer, SINK)
    bulk = await bulk_mb_s(stream.send, stream.receive)
    await stream.aclose()
    return trip, bulk


async def bare_tls(certificate: Path, port: int) -> tuple[float, float]:
    async def connect(kind: bytes) -> trio.SSLStream[trio.SocketStream]:
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(tcp, tls_files(certificate, server_side=False))
        await stream.send_all(kind)
        return stream

    stream = await connect(b"e")

    async def exchange() -> None:
        await stream.send_all(SMALL)
        await stream.receive_some(100)

    trip = await p50_ms(exchange)
    bulk = await connect(b"b")
    speed = await bulk_mb_s(bulk.send_all, lambda: bulk.receive_some(3))
    for each in (stream, bulk):
        await trio.aclose_forcefully(each)
    return trip, speed


async def measure(repeats: int, certificate: Path, where: list[str]) -> dict[str, object]:
    took: dict[str, list[tuple[float, float]]] = {"lane": [], "stream": [], "bare_tls": []}
    unix = []
    async with trio.open_nursery() as nursery:
        near = {"lane": transport(True), "stream": transport(False)}
        for node, address in zip(near.values(), where, strict=False):
            await nursery.start(node.serve)
            await node.connect(address)
        for _ in range(repeats):
            unix.append(await unix_p50_ms())
            for (name, node), address in zip(near.items(), where, strict=False):
                took[name].append(await through(node, address.rpartition("/")[2]))
            took["bare_tls"].append(await bare_tls(certificate, int(where[2])))
        nursery.cancel_scope.cancel()
    middle = {name: [statistics.median(each) for each in zip(*figures, strict=True)] for name, figures in took.items()}
    floor = middle["bare_tls"]
    return {
        "libp2p": version("libp2p"),
        "repeats": repeats,
        "unix_socket_round_trip_p50_ms": round(statistics.median(unix), 4),
        **{
            name: {
                "round_trip_100_bytes_p50_ms": round(trip, 4),
                "bulk_mb_s": round(bulk),
                "bulk_over_tls": round(bulk / floor[1], 2),
                "round_trip_over_tls": round(trip / floor[0], 2),
            }
            for name, (trip, bulk) in middle.items()
        },
    }


def main() -> None:
    keep_heap()  # as the node does
    if sys.argv[1:2] == ["--far"]:
        trio.run(far, Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "certificate.pem"
        certificate.write_bytes(make_certificate(PrivateKey.generate()).pem)
        command = [sys.executable, __file__, "--far", str(certificate)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            where = process.stdout.readline().split()
            report("transport", trio.run(measure, int(sys.argv[1]) if len(sys.argv) > 1 else 3, certificate, where))
            process.stdin.close()


if __name__ == "__main__":
    main()
