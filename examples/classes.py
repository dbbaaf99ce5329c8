"""Load once, call often: a table of primes is made once on each machine, then asked as often as you like."""

import time
from bisect import bisect_right
from itertools import compress

import potluck

app = potluck.App("classes")


@app.cls(cpu=1, memory=512)
class Primes:
    limit: int = potluck.parameter(default=5_000_000)
    primes: list[int] = potluck.parameter(init=False)

    @potluck.enter(snap=True)
    def sieve(self) -> None:
        """Before the fork point: all workers of a machine share the table."""
        is_prime = bytearray([0, 0]) + bytearray([1]) * (self.limit - 1)
        for number in range(2, int(self.limit**0.5) + 1):
            if is_prime[number]:
                is_prime[number * number :: number] = bytes(len(range(number * number, self.limit + 1, number)))
        self.primes = list(compress(range(self.limit + 1), is_prime))

    @potluck.method()
    def count(self, up_to: int) -> int:
        """How many primes there are up to a number."""
        return bisect_right(self.primes, up_to)


@app.local_entrypoint()
def main(asked: int = 200) -> None:
    table = Primes(limit=3_000_000)
    begin = time.monotonic()
    print("primes up to a million:", table.count.remote(1_000_000))
    ready = time.monotonic()
    counts = list(table.count.map(range(0, 3_000_000, 3_000_000 // asked)))
    took_ms = 1000 * (time.monotonic() - ready) / len(counts)
    print(f"first answer after {ready - begin:.2f} s, {len(counts)} more in {took_ms:.1f} ms each")
