"""Time to the first result on a node that never saw the image: fetched as a whole, against mounted and read lazily.

    python benchmarks/lazy.py [--rounds 3] [--links loopback 1000/0.2 100/20]
                              [--packages torch==2.13.0+cpu numpy --find-links WHEELS]

The function imports the stack and does a little work. Each figure starts with an empty node that is up and known to the
caller, and ends with the result; "moved" is what the node's store then holds. "lazy" has nobody to ask for a profile,
"lazy_profile" asks a node that ran the function once. Links are "Mbit/s / round trip in ms", made by a relay process
between the two nodes; it shares the processors with them. Needs FUSE and bubblewrap. Prints JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio
from _common import report

import potluck
from potluck.client import Client
from potluck.output import PlainOutput
from potluck.wire import control
from potluck_images.disk import DiskStore

# In flight on a link beyond its bandwidth-delay product: what a router buffers.
QUEUE_BYTES = 1 << 20
PATIENCE_S = 600.0
# A name for each node: an offer outlives its node by some seconds.
NUMBERS = itertools.count(1)
VARIANTS = {"full": ("never", False), "lazy": ("always", False), "lazy_profile": ("always", True)}


class Node:
    """A node process with its own data folder."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.home = home
        env = os.environ | {"POTLUCK_HOME": str(home)}
        command = [sys.executable, "-m", "potluck_node.main", "--name", home.name, *flags]
        with home.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout
        select.select([self.process.stdout], [], [], PATIENCE_S)
        assert self.process.stdout.readline() == b"ready\n", home.with_suffix(".log").read_text()

    def status(self) -> control.Status:
        client = Client(self.home / "node.sock", PlainOutput(), "bench")
        try:
            return client.ask(control.AskStatus, control.Status)
        finally:
            client.close()

    def knows(self, *names: str, only: bool = False) -> None:
        """Wait until these are known, and with `only` until nobody else is: offers of the dead lapse."""
        deadline = time.monotonic() + PATIENCE_S
        while not set(names) <= (known := {peer.name for peer in self.status().peers}) or (
            only and len(known) > len(names)
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def store_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.home / "store" / "packs").iterdir())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def running(home: Path, *flags: str) -> Iterator[Node]:
    node = Node(home, *flags)
    try:
        yield node
    finally:
        node.stop()


# Links


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def relay(port: int, target: int, mbit_s: float, round_trip_ms: float) -> None:
    """Serve one link: each way `mbit_s`, and half of the round trip's delay."""
    rate, delay_s = mbit_s * 125_000, round_trip_ms / 2000

    async def one_way(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[tuple[float, bytes]](
            max(4, int((rate * delay_s + QUEUE_BYTES) / 65536))
        )
        free_at = 0.0

        async def deliver() -> None:
            async for at, data in receive:
                await trio.sleep_until(at)
                await sink.send_all(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            async with send:
                while data := await source.receive_some(65536):
                    free_at = max(free_at, trio.current_time()) + len(data) / rate
                    await send.send((free_at + delay_s, bytes(data)))
                    await trio.sleep_until(free_at - QUEUE_BYTES / rate)

    async def join(near: trio.SocketStream) -> None:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", target) as far, trio.open_nursery() as nursery:
                nursery.start_soon(one_way, near, far)
                nursery.start_soon(one_way, far, near)
        except* (trio.BrokenResourceError, OSError):
            pass

    await trio.serve_tcp(join, port, host="127.0.0.1")


@contextmanager
def linked(address: str, link: str) -> Iterator[str]:
    """The address under which a node is reached through a link."""
    if link == "loopback":
        yield address
        return
    parts, port = address.split("/"), free_port()
    relay_process = subprocess.Popen([sys.executable, __file__, "--relay", str(port), parts[4], *link.split("/")])
    try:
        time.sleep(1.0)
        yield "/".join([*parts[:4], str(port), *parts[5:]])
    finally:
        relay_process.kill()
        relay_process.wait()


# Rounds


def function(packages: list[str], find_links: str | None):  # type: ignore[no-untyped-def]
    app = potluck.App("bench-lazy")
    image = potluck.Image.local_python().pip_install(*packages, find_links=find_links)

    @app.function(image=image, serialized=True, memory=2048)
    def first() -> float:
        try:
            import torch
        except ImportError:
            import pandas
            import sklearn.linear_model

            return float(sklearn.linear_model.LinearRegression().fit([[1], [2]], [1, 2]).coef_[0]) + len(
                pandas.DataFrame({"a": [1]})
            )
        return float(torch.ones(3).sum())

    return app, first


def one(folder: Path, caller: Node, recorder: str, link: str, variant: str, first) -> tuple[float, int]:  # type: ignore[no-untyped-def]
    """(seconds to the first result, bytes moved) of a fresh node."""
    lazy, profile = VARIANTS[variant]
    home = folder / f"fresh-{next(NUMBERS)}"
    flags = ("--lazy", lazy, "--cpus", "1", "--memory-mib", "6000", "--idle-s", "1")
    with ExitStack() as stack:
        address = stack.enter_context(linked(caller.status().addresses[0], link))
        if profile:  # too small to run the function again
            stack.enter_context(
                running(
                    Path(recorder), "--bootstrap", caller.status().addresses[0], "--memory-mib", "64", "--cpus", "1"
                )
            )
        fresh = stack.enter_context(running(home, "--bootstrap", address, *flags))
        caller.knows(home.name, *(["recorder"] if profile else []), only=True)
        fresh.knows(*(["recorder"] if profile else []))
        start = time.perf_counter()
        first.remote()
        seconds, moved = time.perf_counter() - start, fresh.store_bytes()
    shutil.rmtree(home)
    return seconds, moved


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    figures: dict[str, object] = {}
    with running(folder / "caller", "--no-offer") as caller:
        os.environ["POTLUCK_HOME"] = str(caller.home)
        app, first = function(options.packages, options.find_links)
        with app.run(show_progress=False):
            address = caller.status().addresses[0]
            recorder = folder / "recorder"
            flags = ("--lazy", "always", "--cpus", "1", "--memory-mib", "6000", "--idle-s", "1")
            with running(recorder, "--bootstrap", address, *flags):
                caller.knows("recorder")
                first.remote()
            _forget_all_but_profile(recorder)
            for link in options.links:
                rounds = [
                    {variant: one(folder, caller, str(recorder), link, variant, first) for variant in VARIANTS}
                    for _ in range(options.rounds)
                ]
                figures[link] = _medians(rounds)
                print(json.dumps({link: figures[link]}), file=sys.stderr)
    return figures


def _forget_all_but_profile(home: Path) -> None:
    """So that chunks come through the link alone."""
    store = DiskStore(home / "store")
    profiles = {bytes.fromhex(path.read_text()) for path in (home / "profiles").iterdir()}
    store.discard(set(store.digests()) - profiles)
    store.close()


def _medians(rounds: list[dict[str, tuple[float, int]]]) -> dict[str, object]:
    seconds = {name: statistics.median(each[name][0] for each in rounds) for name in VARIANTS}
    moved = {name: statistics.median(each[name][1] for each in rounds) for name in VARIANTS}
    return {
        "rounds": len(rounds),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "moved_megabytes": {name: round(value / 1e6, 1) for name, value in moved.items()},
        "time_ratio": {name: round(seconds[name] / seconds["full"], 3) for name in ("lazy", "lazy_profile")},
        "bytes_ratio": {name: round(moved[name] / moved["full"], 3) for name in ("lazy", "lazy_profile")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--links", nargs="+", default=["loopback", "1000/0.2", "100/20"])
    parser.add_argument("--packages", nargs="+", default=["scipy", "scikit-learn", "pandas"])
    parser.add_argument("--find-links", help="a folder with wheels")
    parser.add_argument("--relay", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        port, target, mbit_s, round_trip_ms = options.relay
        trio.run(relay, int(port), int(target), float(mbit_s), float(round_trip_ms))
    with tempfile.TemporaryDirectory(prefix="potluck-bench-") as folder:
        report("lazy", {"packages": options.packages, "links": measure(options, Path(folder))})


if __name__ == "__main__":
    main()
