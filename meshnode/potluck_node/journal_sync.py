"""Tells others where our journal is, follows theirs, and has nothing more to do with who keeps two."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import journal as messages
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.journal import Journal, JournalError
from potluck_ledger.sync import FETCH_MAX, Action, Behind, Convict, Fetch, Follower, Spread, Twin
from potluck_node.clock import Clock
from potluck_node.transport.interface import Stream, Transport, TransportError
from potluck_node.witnesses import COSIGN_TIMEOUT_S, Witnesses

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.journal")

AnswerT = TypeVar("AnswerT", messages.EntriesTold, messages.HeadKnown, messages.Cosigned)

JOURNAL_PROTOCOL = "/potluck/journal/1"
# How often our head is told when it has changed, and when not, for those that came later; seconds.
TELL_S, REPEAT_S = 2.0, 60.0
# How often one of the proofs of forks that are known here is told again, for those who were away: seconds. Everybody
# does, and a proof has some KiB: of a thousand nodes two come in a second.
PROOF_AGAIN_S = 600.0
# How often new peers are looked for, to ask them for our own head, seconds.
LOOK_S = 0.5
# An answer of a thousand entries has 250 KiB: a peer that takes longer is of no use. Seconds.
ANSWER_TIMEOUT_S = 10.0
# What a convicted node says of itself.
TWIN = (
    "somebody else signs with this node's key, or a copy of its data folder does: others have the proof, and deal with "
    "it no more. Stop the copy, move node.key and the journal away, and start anew"
)
# Entries that are asked for at the same time; what is heard meanwhile waits for the next checkpoint.
FETCHES_MAX = 8


class JournalSync:
    """`convicted` is told the peer id of whom a proof was found, or had been before the start."""

    def __init__(
        self, transport: Transport, journal: Journal, mesh: str, clock: Clock, witnesses: Witnesses | None = None
    ) -> None:
        self._witnesses = witnesses
        self._transport, self._journal, self._clock = transport, journal, clock
        self._topic = f"/potluck/{mesh}/journals/1"
        self._follower = Follower(journal.owner, journal.digest_of)
        self._fetching: set[str] = set()
        self._nursery: trio.Nursery | None = None
        self.convicted: Callable[[str], None] = lambda owner: None
        self.on_behind: Callable[[str], None] = lambda why: None
        # When peers that are connected were asked for our own head.
        self._asked_for_ours: dict[str, float] = {}
        transport.handle(JOURNAL_PROTOCOL, self.on_stream)

    def entries(self, owner: str) -> int:
        """How many entries of an owner's journal are known to be one chain."""
        return self._follower.sequence(owner)

    def heads(self) -> dict[str, bytes]:
        """The last checkpoint of each peer's journal that is followed."""
        return self._follower.heads()

    def proofs(self) -> dict[str, bytes]:
        """Of each peer that keeps two journals, those found last last."""
        return dict(self._follower.convicted)

    def proved(self, proof: bytes) -> None:
        """Somebody found that a peer keeps two journals. Raises `EnvelopeError` for what proves nothing."""
        self._do(self._follower.proved(proof))

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell and follow until cancelled. The transport must be serving."""
        async with trio.open_nursery() as self._nursery:
            for proof in self._journal.proofs():
                self._do(self._follower.proved(proof))
            await self._transport.subscribe(self._topic, self._heard)
            self._nursery.start_soon(self._ask_for_ours)
            self._nursery.start_soon(self._tell_proofs_again)
            if self._witnesses:
                await self._nursery.start(self._witnesses.serve, self._ask_cosign, self._clock.now_us)
            task_status.started()
            await self._tell_for_ever()

    async def _tell_for_ever(self) -> None:
        told, told_at = 0, 0.0
        while True:
            sequence, _ = self._journal.head()
            if sequence and (sequence != told or trio.current_time() - told_at >= REPEAT_S):
                told, told_at = sequence, trio.current_time()
                checkpoint = self._journal.checkpoint(self._clock.now_us()).encode()
                await self._publish(messages.HeadTold(checkpoint))
            await trio.sleep(TELL_S)

    async def _tell_proofs_again(self) -> None:
        """In turn, until cancelled."""
        for turn in itertools.count():
            await trio.sleep(PROOF_AGAIN_S)
            proofs = list(self._follower.convicted.values())
            if proofs:
                await self._publish(messages.ForkTold(proofs[turn % len(proofs)]))

    async def _publish(self, message: messages.Gossip) -> None:
        await self._transport.publish(self._topic, wire.encode(message))

    async def _heard(self, sender: str, data: bytes) -> None:
        try:
            message = wire.decode(data, messages.Gossip)
            if isinstance(message, messages.HeadTold):
                actions = self._follower.heard(message.checkpoint)
            else:
                actions = self._follower.proved(message.proof)
        except (RemoteProtocolError, EnvelopeError) as error:
            log.info("ignoring what %s tells of a journal: %s", sender[-8:], error)
            return
        self._do(actions)

    def _do(self, actions: Sequence[Action]) -> None:
        assert self._nursery, "journals are not being followed"
        for action in actions:
            if isinstance(action, Fetch):
                self._nursery.start_soon(self._fetch, action)
            elif isinstance(action, Convict):
                self._convict(action)
            elif isinstance(action, Behind):
                self._behind(action)
            elif isinstance(action, Twin):
                self._block(TWIN)
            else:
                # Gossip carries it on by itself.
                assert isinstance(action, Spread)

    def _convict(self, action: Convict) -> None:
        assert self._nursery
        log.error("%s keeps two journals; nothing more is done with it", action.owner)
        try:
            self._journal.keep_proof(action.owner, action.proof)
        except JournalError as error:
            log.error("the proof is not kept: %s", error)
        self.convicted(action.owner)
        self._nursery.start_soon(self._publish, messages.ForkTold(action.proof))

    async def _ask_for_ours(self) -> None:
        """Each peer as soon as it is connected: a lease lasts for seconds before anything of it is signed. And now and
        then: gossip under our own name, of a copy of our data folder, does not reach us."""
        assert self._nursery
        while True:
            asked, now = self._asked_for_ours, trio.current_time()
            for peer in self._transport.peers():
                if now - asked.get(peer, -REPEAT_S) >= REPEAT_S:
                    self._nursery.start_soon(self._ask_peer_for_ours, peer)
                    asked[peer] = now
            self._asked_for_ours = {peer: asked[peer] for peer in self._transport.peers()}
            await trio.sleep(LOOK_S)

    async def _ask_peer_for_ours(self, peer: str) -> None:
        try:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                answer = await self._ask(peer, messages.AskHead(), messages.HeadKnown)
                if answer.checkpoint:
                    self._do(self._follower.heard(answer.checkpoint))
        except (TransportError, RemoteProtocolError, EnvelopeError) as error:
            log.debug("%s does not say what it knows of our journal: %s", peer[-8:], error)

    def _behind(self, action: Behind) -> None:
        ours, _ = self._journal.head()
        self._block(
            "this is not the journal that this node has signed: "
            f"others know its entry {action.sequence}, and here are {ours}. Restore the newest "
            "backup; where there is none, move node.key and the journal away, and start anew"
        )

    def _block(self, why: str) -> None:
        if not self._journal.blocked:
            log.error("%s", why)
            self._journal.block(why)
            self.on_behind(why)

    async def _fetch(self, action: Fetch) -> None:
        """From the owner itself: who follows a journal has a right to see it."""
        if action.owner in self._fetching or len(self._fetching) >= FETCHES_MAX:
            self._follower.failed(action.owner)
            return
        self._fetching.add(action.owner)
        entries: tuple[bytes, ...] = ()
        try:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                entries = await self._asked(action)
        except (TransportError, RemoteProtocolError) as error:
            log.debug("no entries of %s: %s", action.owner[-8:], error)
        finally:
            self._fetching.discard(action.owner)
        self._do(self._follower.came(action.owner, action.after, entries))

    async def _asked(self, action: Fetch) -> tuple[bytes, ...]:
        return await self._entries_of(action.owner, action.after, action.most)

    async def _ask(self, peer: str, question: messages.Question, kind: type[AnswerT]) -> AnswerT:
        stream = await self._transport.open(peer, JOURNAL_PROTOCOL)
        try:
            await stream.send(wire.encode(question))
            return wire.decode(await stream.receive(), kind)
        finally:
            await stream.aclose()

    async def on_stream(self, stream: Stream) -> None:
        """Answer one question."""
        with trio.move_on_after(ANSWER_TIMEOUT_S) as scope:
            question = wire.decode(await stream.receive(), messages.Question)
            if isinstance(question, messages.AskCosign):
                scope.deadline = trio.current_time() + COSIGN_TIMEOUT_S
                answer = await self._cosign(question, stream.peer)
                await stream.send(wire.encode(answer))
            else:
                await stream.send(wire.encode(self._answer(question, stream.peer)))
        await stream.aclose()

    async def _cosign(self, question: messages.AskCosign, peer: str) -> messages.Cosigned:
        if self._witnesses is None or peer in self._follower.convicted:
            return messages.Cosigned(refused="this node is no witness of yours")
        return await self._witnesses.answer(question.checkpoint, peer, self._entries_of)

    async def _entries_of(self, peer: str, after: int, most: int) -> tuple[bytes, ...]:
        return (await self._ask(peer, messages.AskEntries(after, most), messages.EntriesTold)).entries

    async def _ask_cosign(self, peer: str, checkpoint: bytes) -> messages.Cosigned:
        return await self._ask(peer, messages.AskCosign(checkpoint), messages.Cosigned)

    def _answer(
        self, question: messages.AskEntries | messages.AskHead, peer: str
    ) -> messages.EntriesTold | messages.HeadKnown:
        if isinstance(question, messages.AskHead):
            return messages.HeadKnown(self._follower.head(peer))
        most = max(0, min(FETCH_MAX, question.most))
        records = self._journal.records(max(0, question.after), most)
        return messages.EntriesTold(tuple(record.entry for record in records))
