"""Batches, and many inputs at once: coroutines, threads, and a class."""

import asyncio
import threading
import time

import modal

app = modal.App("example-sharing")


@app.function(max_containers=1)
@modal.batched(max_batch_size=4, wait_ms=500)
async def multiply(xs: list[int], ys: list[int]) -> list[tuple[int, int]]:
    return [(x * y, len(xs)) for x, y in zip(xs, ys, strict=True)]


@app.cls(max_containers=1)
class Doubler:
    @modal.batched(max_batch_size=3, wait_ms=500)
    def double(self, xs: list[int]) -> list[int]:
        return [2 * x for x in xs]


@app.function(max_containers=1)
@modal.concurrent(max_inputs=10)
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


# Ten inputs pass only together.
barrier = threading.Barrier(10)


@app.function(max_containers=1)
@modal.concurrent(max_inputs=10, target_inputs=10)
def meet(number: int) -> int:
    barrier.wait(timeout=50)
    return number


@app.local_entrypoint()
def main():
    found = list(multiply.map(range(8), range(8)))
    print("products:", [product for product, _ in found])
    print("batched:", max(size for _, size in found) > 1)
    print("doubled:", list(Doubler().double.map([1, 2, 3])))
    began = time.monotonic()
    print("naps:", sum(nap.map([2.0] * 10)))
    print("together:", time.monotonic() - began < 15)
    print("met:", sorted(meet.map(range(10))))
