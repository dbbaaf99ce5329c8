"""Follows the local node: asks how it is, again and again, and finds it again when it went away. No textual here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from potluck import wire
from potluck.errors import ConnectionError, Error
from potluck.wire import control
from potluck_tui.source import AnswerT, Client, Source

# Often enough to look live, rare enough to cost nothing: a status is about 1 KiB and a fraction of a millisecond.
POLL_S = 0.5
# While nothing happens: twice as rare costs half as much, and whatever begins is seen within a second.
QUIET_POLL_S = 1.0
# A node answers at once; one that has not after this long is stopped, or the machine is out of memory.
ANSWER_TIMEOUT_S = 5.0
# A node is back about a second after its start: the first attempts are quick, and later ones cost no battery.
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 4.0


class Watcher(Protocol):
    """Told what `Link` sees."""

    def seen(self, status: control.Status) -> None: ...
    def lost(self, error: Error, retry_s: float) -> None:
        """The node does not answer; the next attempt is in `retry_s` seconds."""
        ...


class Link:
    """One connection at a time to the node behind `source`, made again as long as `follow` runs."""

    def __init__(self, source: Source, watcher: Watcher) -> None:
        self._source, self._watcher = source, watcher
        self._client: Client | None = None
        self._retry_s = RETRY_FIRST_S
        self._now = asyncio.Event()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self._client = await self._source.connect()
                await self._watch(self._client)
            except Error as error:
                self._watcher.lost(error, self._retry_s)
            finally:
                await self._close()
            await self._pause(self._retry_s)
            self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)

    async def _watch(self, client: Client) -> None:
        before: control.Status | None = None
        while True:
            status = await _ask(client, control.AskStatus, control.Status)
            self._watcher.seen(status)
            self._retry_s = RETRY_FIRST_S
            quiet, before = before is not None and _timeless(before) == _timeless(status), status
            await self._pause(QUIET_POLL_S if quiet else POLL_S)

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.aclose()

    async def _pause(self, seconds: float) -> None:
        """Shorter when `hurry` is called."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._now.wait()
        self._now.clear()

    def hurry(self) -> None:
        """Look again at once."""
        self._now.set()

    async def ask(
        self, make: Callable[[int], wire.Message], kind: type[AnswerT], timeout_s: float | None = None
    ) -> AnswerT:
        """Ask the node. Raises its error, or `ConnectionError` when it is not there."""
        if self._client is None:
            raise ConnectionError("No node answers on this machine.", fix="Start one with `potluck up`.")
        return await _ask(self._client, make, kind, timeout_s)


def _timeless(status: control.Status) -> control.Status:
    return msgspec.structs.replace(status, question=0, now_us=0)


async def _ask(
    client: Client, make: Callable[[int], wire.Message], kind: type[AnswerT], timeout_s: float | None = None
) -> AnswerT:
    timeout_s = ANSWER_TIMEOUT_S if timeout_s is None else timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await client.ask(make, kind)
    except TimeoutError:
        raise ConnectionError(
            "The local node does not answer.",
            why=f"it has not for {timeout_s:g} s",
            fix="Restart it: `potluck down`, `potluck up`.",
        ) from None
