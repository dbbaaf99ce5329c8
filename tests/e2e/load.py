"""Requests one after the other, while something else happens."""

import threading
from collections import Counter
from collections.abc import Callable

import httpx
from tests.e2e.mesh import PATIENCE_S


class Load:
    """Threads that ask until the block is left. `answered` has what came of each, in order; `failed` what did not."""

    def __init__(self, ask: Callable[[httpx.Client], httpx.Response], what=lambda response: response.text, threads=3):
        self._ask, self._what, self._over = ask, what, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self.answered, self.failed = [], []

    def _run(self):
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not self._over.is_set():
                try:
                    response = self._ask(client)
                    if response.status_code == 200:
                        self.answered.append(self._what(response))
                    else:
                        self.failed.append(f"{response.status_code} {response.text}")
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))

    @property
    def counts(self):
        return Counter(self.answered)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()
