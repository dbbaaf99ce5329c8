"""What clients ask of their node to audit a mesh: whose journals it knows of, and what those peers show of them."""

from __future__ import annotations

from potluck.wire.common import Message

# Of one answer: peers with a checkpoint of 300 bytes, and proofs of up to 1,500.
PEERS_MAX, PROOFS_MAX = 300, 300


class AskJournals(Message, frozen=True):
    """Answered by `JournalsKnown`."""

    question: int


class JournalsKnown(Message, frozen=True):
    """Peers, each with the last checkpoint of its journal that was heard (envelope bytes; b"" for none), those first
    that are up; how many more there are; and the proofs (`potluck_ledger.forks`) of those that keep two."""

    question: int
    peers: tuple[tuple[str, bytes], ...]
    left_out: int
    proofs: tuple[bytes, ...]


class AskPeerJournal(Message, frozen=True):
    """A page of a peer's journal behind entry number `after`, from that peer. Answered by `PeerJournal`."""

    question: int
    peer: str
    after: int = 0


class PeerJournal(Message, frozen=True):
    """`records` are pairs as in `JournalAnswer`, and as the peer sent them: nothing is verified yet. `problem` says why
    there are none."""

    question: int
    records: tuple[tuple[bytes, bytes], ...]
    more: bool = False
    problem: str = ""


class TellFork(Message, frozen=True):
    """An audit found a proof (`potluck_ledger.forks`): to be kept, acted on and told to others. Answered by `Done`."""

    question: int
    proof: bytes


AuditQuestion = AskJournals | AskPeerJournal | TellFork
AuditReply = JournalsKnown | PeerJournal
