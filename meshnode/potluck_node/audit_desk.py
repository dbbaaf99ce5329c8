"""What clients of this node ask to audit a mesh. Journals are passed on as they come: who audits verifies them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from potluck import wire
from potluck.errors import InvalidError, RemoteProtocolError
from potluck.wire import audit as messages
from potluck.wire.accounts import RECORDS_MAX, AskAccounts
from potluck.wire.control import Done
from potluck_ledger.envelope import EnvelopeError
from potluck_node.journal_sync import JournalSync
from potluck_node.lab import Lab
from potluck_node.lab_sync import ANSWER_TIMEOUT_S, ask_accounts
from potluck_node.transport.interface import Transport, TransportError


class AuditDesk:
    """Asks peers what nodes of a lab ask each other. `offering` are peers whose offers hold now."""

    def __init__(
        self, transport: Transport, journals: JournalSync, lab: Lab, offering: Callable[[], Iterable[str]]
    ) -> None:
        self._transport, self._journals, self._lab, self._offering = transport, journals, lab, offering

    async def answer(self, question: messages.AuditQuestion) -> wire.Message:
        """Peers that do not answer are no error: the answer says so. Raises `InvalidError`."""
        if isinstance(question, messages.AskPeerJournal):
            return await self._page(question)
        if isinstance(question, messages.TellFork):
            return self._spread(question)
        return self._known(question.question)

    def _known(self, question: int) -> messages.JournalsKnown:
        heads, proofs = self._journals.heads(), self._journals.proofs()
        near = [*sorted(self._transport.peers()), *sorted(self._offering())]
        peers = [peer for peer in dict.fromkeys([*near, *sorted(heads)]) if peer not in proofs]
        listed = tuple((peer, heads.get(peer, b"")) for peer in peers[: messages.PEERS_MAX])
        return messages.JournalsKnown(
            question, listed, len(peers) - len(listed), tuple(proofs.values())[-messages.PROOFS_MAX :]
        )

    def _spread(self, question: messages.TellFork) -> Done:
        """Raises `InvalidError`."""
        try:
            self._journals.proved(question.proof)
        except EnvelopeError as error:
            raise InvalidError("This proves nothing.", why=str(error)) from None
        return Done(question.question)

    async def _page(self, question: messages.AskPeerJournal) -> messages.PeerJournal:
        # Its rules are not wanted: we name ours, and a node of the same lab has the same.
        asked = AskAccounts(question.after, self._lab.rules_digest(), audit=True)
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                told = await ask_accounts(self._transport, question.peer, asked)
        except (TransportError, RemoteProtocolError, trio.TooSlowError) as error:
            why = str(error) or f"nothing came within {ANSWER_TIMEOUT_S:g} s"
            return messages.PeerJournal(question.question, (), problem=f"it does not answer: {why}")
        return messages.PeerJournal(question.question, told.records[:RECORDS_MAX], len(told.records) >= RECORDS_MAX)
