"""Has our journal's head cosigned by the witnesses that the settings name, and cosigns those of others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from potluck.errors import RemoteProtocolError
from potluck.wire import journal as messages
from potluck_ledger.entries import Checkpoint
from potluck_ledger.envelope import EnvelopeError, countersign, open_envelope
from potluck_ledger.journal import Journal, JournalError
from potluck_ledger.keys import PrivateKey
from potluck_ledger.sync import FETCH_MAX
from potluck_ledger.witness import NOTHING, Asked, Seen, joined
from potluck_node.books import at_once
from potluck_node.keeping import kept
from potluck_node.transport.interface import TransportError

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.witnesses")

# How often a head that has changed is cosigned, seconds: each witness syncs its disk for it.
COSIGN_S = 10.0
# A witness that fetches many entries first takes so long at most, seconds.
COSIGN_TIMEOUT_S = 30.0

# Asks a peer for entries of its journal: (peer, after, most).
FetchEntries = Callable[[str, int, int], Awaitable[tuple[bytes, ...]]]
# Asks a peer to cosign.
AskCosign = Callable[[str, bytes], Awaitable[messages.Cosigned]]


class Witnesses:
    """`witnesses` are peer ids, of which `needed` must sign; none leaves only the other side, for others' journals."""

    def __init__(self, key: PrivateKey, journal: Journal, witnesses: tuple[str, ...], needed: int) -> None:
        self._key, self._journal, self._witnesses, self._needed = key, journal, witnesses, needed
        self.keep = at_once(journal)
        # One at a time for each owner: two at once could each lead from the same head to another.
        self._busy: set[str] = set()

    async def answer(self, data: bytes, owner: str, fetch: FetchEntries) -> messages.Cosigned:
        """Cosign an owner's head, if it leads on from the last one."""
        if owner in self._busy:
            return messages.Cosigned(refused="another head of yours is being looked at")
        self._busy.add(owner)
        try:
            return messages.Cosigned(await self._cosigned(data, owner, fetch))
        except (EnvelopeError, JournalError, TransportError, RemoteProtocolError) as error:
            log.warning("not cosigning a head of %s: %s", owner[-8:], error)
            return messages.Cosigned(refused=str(error))
        finally:
            self._busy.discard(owner)

    async def _cosigned(self, data: bytes, owner: str, fetch: FetchEntries) -> bytes:
        last = self._journal.cosigned(owner)
        asked = Asked(data, owner, Seen(*last) if last else NOTHING)
        while not asked.is_shown:
            most = min(FETCH_MAX, asked.checkpoint.sequence - asked.after)
            asked.came(await fetch(owner, asked.after, most))
        seen = asked.checkpoint.sequence, asked.checkpoint.head
        await kept(self.keep, lambda: self._journal.keep_cosigned(owner, *seen))
        return countersign(self._key, open_envelope(data, Checkpoint.KIND)).encode()

    async def serve(
        self, ask: AskCosign, now_us: Callable[[], int], *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have our head cosigned whenever it has changed, until cancelled."""
        task_status.started()
        done = 0
        while self._witnesses:
            sequence, _ = self._journal.head()
            if sequence != done and not self._journal.blocked and await self._have_cosigned(ask, now_us()):
                done = sequence
            await trio.sleep(COSIGN_S)

    async def _have_cosigned(self, ask: AskCosign, now_us: int) -> bool:
        ours, answers = self._journal.checkpoint(now_us).encode(), list[bytes]()

        async def ask_one(peer: str) -> None:
            try:
                with trio.move_on_after(COSIGN_TIMEOUT_S):
                    answer = await ask(peer, ours)
                    answers.append(answer.checkpoint)
                    if answer.refused:
                        log.warning("%s does not cosign our head: %s", peer[-8:], answer.refused)
            except (TransportError, RemoteProtocolError) as error:
                log.info("%s does not cosign our head: %s", peer[-8:], error)

        async with trio.open_nursery() as nursery:
            for peer in self._witnesses:
                nursery.start_soon(ask_one, peer)
        found = joined(ours, answers, self._witnesses, self._needed)
        if found:
            self._journal.keep_head(found)
        return bool(found)
