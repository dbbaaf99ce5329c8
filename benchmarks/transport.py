"""How fast a stream of the mesh is, on loopback: round trip and bulk, against a bare Unix socket. Prints JSON.

Run: python benchmarks/transport.py [repeats]
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import trio

from potluck_ledger.keys import PrivateKey
from potluck_node.transport.interface import Stream
from potluck_node.transport.libp2p import Libp2pTransport

ECHO, SINK = "/potluck/bench/echo/1", "/potluck/bench/sink/1"
SMALL, ROUND_TRIPS = bytes(100), 2000
PIECE, BULK_BYTES = bytes(1 << 20), 256 << 20


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


async def sink(stream: Stream) -> None:
    """Swallow `BULK_BYTES`, then answer."""
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
    return round(statistics.median(times) * 1000, 4)


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


async def bulk_mb_s(stream: Stream) -> float:
    start = time.perf_counter()
    for _ in range(BULK_BYTES // len(PIECE)):
        await stream.send(PIECE)
    await stream.receive()
    return round(BULK_BYTES / (time.perf_counter() - start) / 1e6, 1)


async def measure(repeats: int) -> dict[str, object]:
    nodes = [
        Libp2pTransport(PrivateKey.generate(), ("/ip4/127.0.0.1/tcp/0",), (), lambda key, value: None) for _ in "ab"
    ]
    trips, bulks, unix = [], [], []
    async with trio.open_nursery() as nursery:
        for node in nodes:
            node.handle(ECHO, echo)
            node.handle(SINK, sink)
            await nursery.start(node.serve)
        near, far = nodes
        await near.connect(far.addresses()[0])
        for _ in range(repeats):
            stream = await near.open(far.peer, ECHO)

            async def exchange(stream: Stream = stream) -> None:
                await stream.send(SMALL)
                await stream.receive()

            trips.append(await p50_ms(exchange))
            unix.append(await unix_p50_ms())
            bulks.append(await bulk_mb_s(await near.open(far.peer, SINK)))
        nursery.cancel_scope.cancel()
    return {
        "libp2p": version("libp2p"),
        "round_trip_100_bytes_p50_ms": statistics.median(trips),
        "unix_socket_p50_ms": statistics.median(unix),
        "bulk_mb_s": statistics.median(bulks),
        "bulk_mb_s_all": bulks,
    }


if __name__ == "__main__":
    print(json.dumps(trio.run(measure, int(sys.argv[1]) if len(sys.argv) > 1 else 3), indent=2))
