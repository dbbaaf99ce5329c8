"""The end of a lease: its receipt is signed and countersigned, and kept with what else there is to say of it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from potluck.wire import lease as messages
from potluck_ledger.entries import sign
from potluck_ledger.journal import Journal, JournalError
from potluck_ledger.keys import PrivateKey
from potluck_node.books import Keep, settle
from potluck_node.clock import Clock
from potluck_node.core import provider_events as ev
from potluck_node.core.receipts import write_receipt
from potluck_node.gpus import GpuWatch
from potluck_node.keeping import kept
from potluck_node.link import Link

log = logging.getLogger("potluck.provider")

# How long the caller may take to countersign. After that the receipt is kept with our signature alone.
COUNTERSIGN_TIMEOUT_S = 5.0
# How long a lease's last sample of its GPUs may take; the caller waits 5 s for the receipt.
LAST_SAMPLE_TIMEOUT_S = 2.0


@dataclass
class Held:
    """A lease that is open at a provider."""

    caller: str
    link: Link
    asked: bool = False
    signed: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)
    countersigned: bytes = b""


class Settling:
    """`pause` ends taking work, when nothing can be signed for it; `keep` waits for the disk."""

    def __init__(
        self, key: PrivateKey, journal: Journal, keep: Keep, clock: Clock, pause: Callable[[str], None]
    ) -> None:
        self._key, self._journal, self.keep, self._clock, self._pause = key, journal, keep, clock, pause

    async def settle(self, action: ev.SettleLease, held: Held | None, gpus: GpuWatch | None) -> None:
        """Sign, let the caller countersign, keep; a caller that is gone leaves a receipt with one signature."""
        if not action.function or not action.meter.inputs or action.caller == self._key.peer:
            return
        if action.gpu and gpus:
            with trio.move_on_after(LAST_SAMPLE_TIMEOUT_S):
                await gpus.sample()
        envelope = self._receipt(action)
        if held:
            held.link.post(messages.ReceiptOffered(envelope))
            with trio.move_on_after(COUNTERSIGN_TIMEOUT_S):
                await held.signed.wait()
        await self._settled_as(action, envelope, held.countersigned if held else b"")

    async def _settled_as(self, action: ev.SettleLease, ours: bytes, theirs: bytes) -> None:
        """Without a journal nothing can be billed, so nothing more is run until the owner has mended it."""
        now_us = self._clock.now_us()
        try:
            await kept(self.keep, lambda: settle(self._key, self._journal, action, ours, theirs, now_us))
        except JournalError as error:
            log.error("no more work is taken: %s", error)
            self._pause(str(error))

    def _receipt(self, action: ev.SettleLease) -> bytes:
        assert action.function
        receipt = write_receipt(
            lease=action.lease,
            caller=action.caller,
            provider=self._key.peer,
            spec=action.function,
            meter=action.meter,
            times=(action.started_us, self._clock.now_us()),
            nonce=secrets.token_bytes(16),
            reason=action.reason,
            gpu=action.gpu,
            tier=action.tier,
        )
        return sign(self._key, receipt).encode()
