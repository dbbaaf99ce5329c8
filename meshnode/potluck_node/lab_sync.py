"""Nodes of a lab show each other their journals and the admins' grants, so that all count the same use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire.accounts import RECORDS_MAX, RULES_MAX, RUNNING_MAX, AccountsTold, AskAccounts, RunningLease
from potluck_ledger.entries import parsed, parties, read_voucher
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.journal import Journal, JournalError, Record
from potluck_ledger.usage import Running, What
from potluck_node.lab import Lab
from potluck_node.transport.interface import Stream, Transport, TransportError

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.lab")

ACCOUNTS_PROTOCOL = "/potluck/accounts/1"
# How often each peer is asked, seconds: so long somebody may use a second machine before the first has told of it.
ASK_S = 3.0
# A page comes at once; a peer that takes longer is asked again the next time. Seconds.
ANSWER_TIMEOUT_S = 5.0
# Peers that are asked at the same time, and pages that one may have in a row.
AT_ONCE_MAX, PAGES_MAX = 8, 100
# When the leases of a peer that does not answer are taken to be over, seconds; its journal will tell what they used.
SILENT_S = 600.0


class LabSync:
    """Asks nobody where the owner has named no admins. `running` are our own open leases."""

    def __init__(self, transport: Transport, journal: Journal, lab: Lab) -> None:
        self._transport, self._journal, self._lab = transport, journal, lab
        self.running: Callable[[], tuple[RunningLease, ...]] = lambda: ()
        # Who has an admin's certificate of the mesh.
        self.is_admin: Callable[[str], bool] = lambda peer: False
        self._heard: dict[str, float] = {}
        self._places = trio.CapacityLimiter(AT_ONCE_MAX)
        # Vouchers that were verified, by their bytes: most have not changed since.
        self._known: dict[str, dict[bytes, Running]] = {}
        transport.handle(ACCOUNTS_PROTOCOL, self.on_stream)

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled. The transport must be serving."""
        task_status.started()
        if not self._lab.admins:
            await trio.sleep_forever()
        while True:
            self._lab.catch_up()
            async with trio.open_nursery() as nursery:
                for peer in self._transport.peers():
                    nursery.start_soon(self._ask, peer)
            self._drop_silent()
            await trio.sleep(ASK_S)

    def _drop_silent(self) -> None:
        for peer, heard in list(self._heard.items()):
            if trio.current_time() - heard > SILENT_S:
                del self._heard[peer]
                self._known.pop(peer, None)
                self._lab.usage.gone(peer)

    async def _ask(self, peer: str) -> None:
        async with self._places:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                try:
                    for _ in range(PAGES_MAX):
                        if not await self._page(peer):
                            return
                except (TransportError, RemoteProtocolError) as error:
                    log.debug("%s does not tell of its use: %s", peer[-8:], error)
                except JournalError as error:
                    log.warning("what %s shows of its journal does not count: %s", peer[-8:], error)

    async def _page(self, peer: str) -> bool:
        """Whether there is more."""
        question = AskAccounts(self._lab.after(peer), self._lab.rules_digest())
        told = await ask_accounts(self._transport, peer, question)
        self._heard[peer] = trio.current_time()
        self._lab.take_rules(told.rules[:RULES_MAX])
        self._take_running(peer, told.running[:RUNNING_MAX])
        self._lab.take(peer, [Record(*pair) for pair in told.records[:RECORDS_MAX]])
        return len(told.records) >= RECORDS_MAX

    def _take_running(self, peer: str, running: tuple[RunningLease, ...]) -> None:
        known = self._known.get(peer, {})
        self._known[peer] = {
            each.voucher: found for each in running if (found := known.get(each.voucher) or _read(peer, each))
        }
        self._lab.usage.running(peer, list(self._known[peer].values()))

    async def on_stream(self, stream: Stream) -> None:
        """Answer one question."""
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            question = wire.decode(await stream.receive(), AskAccounts)
            await stream.send(wire.encode(self._told(question, stream.peer)))
        await stream.aclose()

    def _told(self, question: AskAccounts, peer: str) -> AccountsTold:
        records = self._journal.records(max(0, question.after), RECORDS_MAX)
        if not self._lab.admins:
            return AccountsTold(tuple(self._shown(records, peer))) if question.audit else AccountsTold()
        self._lab.catch_up()
        rules = () if question.rules == self._lab.rules_digest() else tuple(self._lab.rules())
        return AccountsTold(tuple(records), self.running(), rules)

    def _shown(self, records: Iterable[Record], peer: str) -> Iterator[Record]:
        """To an admin of the mesh all; to anybody else what it signed itself, or may be asked about."""
        is_admin = self.is_admin(peer)
        for record in records:
            is_shown = is_admin or peer in parties(parsed(record.content)[1])
            yield record if is_shown else Record(record.entry, b"")


async def ask_accounts(transport: Transport, peer: str, question: AskAccounts) -> AccountsTold:
    """Raises `TransportError`, `RemoteProtocolError`."""
    stream = await transport.open(peer, ACCOUNTS_PROTOCOL)
    try:
        await stream.send(wire.encode(question))
        return wire.decode(await stream.receive(), AccountsTold)
    finally:
        await stream.aclose()


def _read(peer: str, lease: RunningLease) -> Running | None:
    try:
        voucher = read_voucher(lease.voucher)
    except EnvelopeError:
        return None
    what = What(lease.app, lease.model)
    return Running(voucher.lease, voucher.caller, what, voucher.lease_us) if voucher.provider == peer else None
