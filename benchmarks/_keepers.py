"""The contenders of `state.py`, each run by the Python of its own environment.

python _keepers.py potluck|redis OPERATIONS
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

# As many programs, or coroutines of one, as ask at the same time.
THREADS = 16
# What is put: about a page of text, pickled by both.
VALUE = "x" * 1000


def figures(operations: dict[str, Callable[[int], object]], count: int) -> None:
    """Each operation one after the other, then by several threads at once."""
    found: dict[str, float] = {}
    for name, operate in operations.items():
        for number in range(count // 10):
            operate(number)
        taken = []
        for number in range(count):
            start = time.perf_counter_ns()
            operate(number)
            taken.append((time.perf_counter_ns() - start) / 1000)
        found[f"{name}_us"] = statistics.median(taken)
        found[f"{name}_per_s_{THREADS}_threads"] = at_once(operate, count)
    print(json.dumps(found))


def at_once(operate: Callable[[int], object], count: int) -> float:
    """Operations a second of all threads together."""

    def work() -> None:
        for number in range(count // THREADS):
            operate(number)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    start = time.perf_counter_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count // THREADS * THREADS / ((time.perf_counter_ns() - start) / 1e9)


def potluck(count: int) -> None:
    from potluck import Dict, Queue

    with Dict.ephemeral() as d, Queue.ephemeral() as q:

        def pass_on(number: int) -> None:
            q.put(VALUE)
            q.get()

        puts: dict[str, Callable[[int], object]] = {
            "dict_put": lambda number: d.put(number % 100, VALUE),
            "dict_get": lambda number: d.get(number % 100),
            "queue_put_get": pass_on,
            "queue_put_100": lambda number: (q.put_many([VALUE] * 100), q.get_many(100)),
        }
        figures(puts, count)


def redis(count: int) -> None:
    import redis

    client: Any = redis.Redis(unix_socket_path=os.environ["REDIS_SOCKET"])

    def pass_on(number: int) -> None:
        client.rpush("q", pickle.dumps(VALUE))
        pickle.loads(client.blpop("q")[1])

    figures(
        {
            "dict_put": lambda number: client.hset("d", number % 100, pickle.dumps(VALUE)),
            "dict_get": lambda number: pickle.loads(client.hget("d", number % 100)),
            "queue_put_get": pass_on,
            "queue_put_100": lambda number: (
                client.rpush("q", *(pickle.dumps(VALUE) for _ in range(100))),
                client.lpop("q", 100),
            ),
        },
        count,
    )


if __name__ == "__main__":
    {"potluck": potluck, "redis": redis}[sys.argv[1]](int(sys.argv[2]))
