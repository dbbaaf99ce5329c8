"""`make demo`: a private mesh of three nodes on this machine, a real job on it, and the receipts that prove it.

Each node is a process of its own with its own data folder and identity; they speak libp2p over loopback.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
POTLUCK = [sys.executable, "-m", "potluck.cli.main"]

# A lease is closed, and its receipt signed, two seconds after the last result.
RECEIPTS_TIMEOUT_S = 20


class Node:
    """One node of the mesh, driven through the command line like any other."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.env = {**os.environ, "POTLUCK_HOME": str(folder / name)}
        self.env.pop("POTLUCK_SOCKET", None)

    def run(self, *arguments: str, show: bool = False) -> str:
        done = subprocess.run(
            [*POTLUCK, *arguments], env=self.env, check=True, text=True, stdout=None if show else subprocess.PIPE
        )
        return done.stdout or ""

    def start(self, *flags: str) -> None:
        self.run("up", "--name", self.name, "--mesh", "demo", *flags)

    def status(self) -> dict:
        return json.loads(self.run("status", "--json"))

    def stop(self) -> None:
        subprocess.run([*POTLUCK, "down"], env=self.env, check=False, stdout=subprocess.DEVNULL)


def wait_until(what: str, condition) -> None:
    deadline = time.monotonic() + RECEIPTS_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"The demo failed: {what} took more than {RECEIPTS_TIMEOUT_S} s.")
        time.sleep(0.2)


def offering(node: Node) -> list[dict]:
    return [peer for peer in node.status()["peers"] if peer["state"] == "open"]


def demo(folder: Path, nodes: list[Node]) -> None:
    caller, *providers = nodes
    print("Starting three nodes: yours, which offers nothing, and two that lend one CPU each.")
    caller.start("--no-offer")
    address = caller.status()["addresses"][0]
    for provider in providers:
        provider.start("--cpus", "1", "--memory-mib", "2048", "--bootstrap", address)
    wait_until("finding the providers", lambda: len(offering(caller)) == len(providers))
    caller.run("status", show=True)

    print("\nSearching for the best settings of a classifier, one call each, on both providers:\n", flush=True)
    caller.run("run", str(HERE / "digits_grid_search.py"), show=True)

    wait_until("signing the receipts", lambda: caller.status()["entries"] >= len(providers))
    for provider in providers:
        print(f"\nWhat {provider.name} gave:", flush=True)
        provider.run("ledger", "list", show=True)
    journals = [str(folder / f"{node.name}.jsonl") for node in nodes]
    for node, journal in zip(nodes, journals, strict=True):
        node.run("ledger", "export", journal)
    print("\nVerifying all three journals against each other:", flush=True)
    caller.run("ledger", "verify", *journals, show=True)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="potluck-demo-"))
    nodes = [Node(folder, name) for name in ("you", "ann", "bob")]
    try:
        demo(folder, nodes)
    except subprocess.CalledProcessError as error:
        for log in sorted(folder.glob("*/node.log")):
            print(f"--- {log}", log.read_text()[-2000:], sep="\n", file=sys.stderr)
        sys.exit(f"The demo failed: {error}")
    finally:
        for node in nodes:
            node.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("\nEverything that the demo started has been stopped.")


if __name__ == "__main__":
    main()
