"""The ledger's own speed, on one core: receipts signed, read and verified, kept; entries followed.

The floor of verifying is the bare check of a signature with the library that is used, libsodium, with OpenSSL's beside
it. Prints JSON; medians.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_sign_open

from potluck_ledger import keys
from potluck_ledger.entries import Checkpoint, Entry, Receipt, read_receipt, sign
from potluck_ledger.envelope import Envelope, countersign, open_envelope
from potluck_ledger.journal import GENESIS, Journal, Problem, digest
from potluck_ledger.keys import SIGNATURES_KEPT, PrivateKey
from potluck_ledger.sync import Convict, Fetch, Follower
from potluck_node.keeping import Keeping

T = TypeVar("T")

ROUNDS = 7
CALLER, PROVIDER = PrivateKey(bytes(32)), PrivateKey(bytes([1]) * 32)


def receipt(number: int) -> Receipt:
    return Receipt(
        f"lease-{number}", CALLER.peer, PROVIDER.peer, "ab" * 16, "app.f", "cd" * 32, bytes(16), 1, 2, 1_000_000,
        900_000, 250, 3, bytes(32), "GPU-1", "A10G", "wall", "provider's clock", "the caller is done", "bwrap",
    )  # fmt: skip


def forget() -> None:
    """What was checked once is checked again."""
    keys._known.clear()


def per_second(run: Callable[[], object], count: int) -> float:
    """Median over rounds of how many of `count` things `run` does in a second."""
    rates = []
    for _ in range(ROUNDS):
        forget()
        begun = time.perf_counter()
        run()
        rates.append(count / (time.perf_counter() - begun))
    return round(statistics.median(rates))


def signing(count: int) -> dict[str, float]:
    """Signatures that are known to hold are forgotten before each round."""
    made = [receipt(number) for number in range(count)]
    whole = [countersign(CALLER, sign(PROVIDER, each)).encode() for each in made]
    alone = [sign(PROVIDER, each).encode() for each in made]
    raw, data = PROVIDER.public.raw, bytes(300)
    key, signature = Ed25519PublicKey.from_public_bytes(raw), PROVIDER.sign(data)
    together = signature + data

    def halves() -> None:
        parts = alone[: count // 2], alone[count // 2 :]
        list(pool.map(lambda part: [read_receipt(each) for each in part], parts))

    with ThreadPoolExecutor(2) as pool:
        found = {
            "signed": per_second(lambda: [sign(PROVIDER, each) for each in made], count),
            "verified_with_one_signature": per_second(lambda: [read_receipt(each) for each in alone], count),
            "the_same_on_two_threads": per_second(halves, count),
            "verified_with_both": per_second(lambda: [read_receipt(each) for each in whole], count),
            "bare_signatures": per_second(lambda: [PROVIDER.sign(data) for _ in made], count),
            "bare_signature_checks": per_second(lambda: [crypto_sign_open(together, raw) for _ in made], count),
            "the_same_with_openssl": per_second(lambda: [key.verify(signature, data) for _ in made], count),
            "receipt_bytes": len(open_envelope(whole[0], Receipt.KIND).body),
            "envelope_bytes": len(whole[0]),
        }
    return found | {
        "one_signature_of_bare": round(found["verified_with_one_signature"] / found["bare_signature_checks"], 2)
    }


def keeping(count: int) -> dict[str, float]:
    """Appends wait for the disk, one by one: a lease has one, whatever its calls."""
    made = [countersign(CALLER, sign(PROVIDER, receipt(number))).encode() for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", CALLER)
        begun = time.perf_counter()
        for number, each in enumerate(made):
            journal.append(each, number)
        append = count / (time.perf_counter() - begun)
        journal.close()
        file = os.open(Path(folder) / "bare", os.O_CREAT | os.O_WRONLY)
        begun = time.perf_counter()
        for each in made:
            os.write(file, each)
            os.fsync(file)
        bare = count / (time.perf_counter() - begun)
        os.close(file)
    return {"appended": round(append), "bare_write_and_fsync": round(bare), "of_bare": round(append / bare, 2)}


def _checked(offered: list[bytes]) -> list[Envelope]:
    return [read_receipt(each)[0] for each in offered]


def _countersigned(read: list[Envelope]) -> list[bytes]:
    return [countersign(CALLER, each).encode() for each in read]


def countersigning(offered: list[bytes], journal: Journal, batch: int) -> dict[str, float]:
    """What a caller's node does with each receipt: check it, sign it, keep it. Seconds of a core, of each part and
    receipt."""
    parts = dict.fromkeys(("check", "sign", "keep"), 0.0)
    forget()

    def timed(part: str, work: Callable[[], T]) -> T:
        begun = time.process_time()
        done = work()
        parts[part] += time.process_time() - begun
        return done

    for at in range(0, len(offered), batch):
        read = timed("check", partial(_checked, offered[at : at + batch]))
        signed = timed("sign", partial(_countersigned, read))
        timed("keep", partial(journal.append_all, signed, at))
    return {part: took / len(offered) for part, took in parts.items()}


def batching(count: int, batch: int) -> dict[str, float]:
    """Receipts that come together wait for the disk once. With a receipt for each of 1,000 calls a second, what that
    takes of one core, part by part."""
    offered = [sign(PROVIDER, receipt(number)).encode() for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", CALLER)
        begun = time.perf_counter()
        parts = countersigning(offered, journal, batch)
        took = time.perf_counter() - begun
        journal.close()
    shares = {f"{part}_of_a_core_at_1000": round(took * 1000, 3) for part, took in parts.items()}
    return {"batch": batch, "per_second": round(count / took), **shares}


async def loaded(count: int, *, keeps: bool) -> dict[str, float]:
    """A thousand receipts come in a second: each is checked, signed, and kept by a node's `Keeping`. What of a core the
    process uses, how long a receipt waits, and how many shared one wait for the disk."""
    waits, commits = list[float](), [0]
    offered = [sign(PROVIDER, receipt(number)).encode() for number in range(count)]
    forget()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", CALLER)
        together = journal.together

        def counted(writes: Sequence[Callable[[], None]]) -> list[Problem]:
            commits[0] += 1
            return together(writes)

        def append(signed: bytes) -> None:
            journal.append(signed, 1)

        def waited(since: float, problem: Problem) -> None:
            waits.append(time.perf_counter() - since)

        journal.together = counted  # type: ignore[method-assign]
        keeping = Keeping(journal)
        async with trio.open_nursery() as nursery:
            await nursery.start(keeping.serve)
            begun, used = time.perf_counter(), time.process_time()
            for number, each in enumerate(offered):
                await trio.sleep(max(0.0, begun + number / 1000 - time.perf_counter()))
                at = time.perf_counter()
                if keeps:
                    (signed,) = _countersigned(_checked([each]))
                    keeping.keep(partial(append, signed), partial(waited, at))
            took, used = time.perf_counter() - begun, time.process_time() - used
            nursery.cancel_scope.cancel()
        journal.close()
    found = {"of_a_core": round(used / took, 3)}
    if keeps:
        tenths = statistics.quantiles(waits, n=20)
        found |= {
            "p50_ms": round(tenths[9] * 1e3, 2),
            "p95_ms": round(tenths[18] * 1e3, 2),
            "per_commit": round(count / commits[0], 1),
        }
    return found


class Gossip:
    """Nodes that each know eight others, 10 to 300 ms away; each tells on what is new to it, once, as gossipsub does,
    and has its own follower. Times are virtual."""

    def __init__(self, nodes: int, dice: random.Random) -> None:
        self._dice, self._heap, self._count = dice, list[tuple[float, int, int, bytes, bool]](), 0
        self._near = [dice.sample(range(nodes), 8) for _ in range(nodes)]
        self._heard: list[set[bytes]] = [set() for _ in range(nodes)]
        self._followers = [Follower(f"node {number}") for number in range(nodes)]
        self.convicted_s: dict[int, float] = {}

    def tell(self, node: int, data: bytes, at_s: float, *, is_proof: bool = False) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, node, data, is_proof))

    def run(self) -> None:
        while self._heap:
            at_s, _, node, data, is_proof = heapq.heappop(self._heap)
            if data in self._heard[node]:
                continue
            self._heard[node].add(data)
            follower = self._followers[node]
            for action in follower.proved(data) if is_proof else follower.heard(data):
                if isinstance(action, Convict):
                    self.convicted_s[node] = at_s
                    self.tell(node, action.proof, at_s, is_proof=True)
            for other in self._near[node]:
                self.tell(other, data, at_s + self._dice.uniform(0.01, 0.3), is_proof=is_proof)


def proving(nodes: int, seeds: int) -> dict[str, float]:
    """Two heads of one number, the second told to one node up to 2 s after the first to another: how long from then
    until 95 of 100 nodes have the proof. The worst of some seeds."""
    worst, mean = 0.0, []
    heads = [sign(CALLER, Checkpoint(CALLER.peer, 9, bytes([each]) * 32, 1, 0, 0)).encode() for each in (1, 2)]
    for seed in range(seeds):
        dice = random.Random(seed)
        gossip, second_s = Gossip(nodes, dice), dice.uniform(0, 2)
        gossip.tell(0, heads[0], 0.0)
        gossip.tell(nodes // 2, heads[1], second_s)
        gossip.run()
        assert len(gossip.convicted_s) > 0.99 * nodes
        times = sorted(at_s - second_s for at_s in gossip.convicted_s.values())
        mean.append(times[len(times) // 2])
        worst = max(worst, times[len(times) * 95 // 100])
    return {"nodes": nodes, "p50_s": round(statistics.median(mean), 2), "p95_s_worst_seed": round(worst, 2)}


def following(count: int) -> dict[str, float]:
    """Entries of one journal, checked as they are fetched."""
    entries: list[bytes] = []
    for number in range(1, count + 1):
        previous = digest(entries[-1]) if entries else GENESIS
        entries.append(sign(CALLER, Entry(number, previous, number, bytes(32))).encode())
    heads = [sign(CALLER, Checkpoint(CALLER.peer, n, digest(entries[n - 1]), 1, 0, 0)).encode() for n in (1, count)]
    follower = Follower(PROVIDER.peer)
    follower.heard(heads[0])
    begun = time.perf_counter()
    actions = follower.heard(heads[1])
    while actions and isinstance(fetch := actions[0], Fetch):
        actions = follower.came(fetch.owner, fetch.after, entries[fetch.after : fetch.after + fetch.most])
    took = time.perf_counter() - begun
    assert follower.sequence(CALLER.peer) == count
    return {"entries": count, "seconds": round(took, 2), "per_second": round(count / took)}


def main() -> None:
    """`python benchmarks/ledger.py [ENTRIES]`."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    found = {
        "receipts": signing(SIGNATURES_KEPT // 2),
        "journal": keeping(500),
        "batches": [batching(2000, batch) for batch in (1, 10, 50)],
        "1000_receipts_a_second": trio.run(partial(loaded, 3000, keeps=True)),
        "the_same_loop_keeping_nothing": trio.run(partial(loaded, 3000, keeps=False)),
        "proof": proving(1000, 3),
        "follow": following(entries),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
