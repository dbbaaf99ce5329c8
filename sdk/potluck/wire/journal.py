"""Following journals: what is gossiped of them, and entries that are asked for on the stream `/potluck/journal/1`."""

from __future__ import annotations

from potluck.wire.common import Message


class HeadTold(Message, frozen=True):
    """Gossip: a signed checkpoint (envelope bytes), of the sender's journal or another's."""

    checkpoint: bytes


class ForkTold(Message, frozen=True):
    """Gossip: a proof that somebody keeps two journals (`potluck_ledger.forks`)."""

    proof: bytes


class AskEntries(Message, frozen=True):
    """The entries of the asked peer's own journal behind number `after`, at most so many. Answered by `EntriesTold`."""

    after: int
    most: int


class EntriesTold(Message, frozen=True):
    """Envelopes of entries, without what they record."""

    entries: tuple[bytes, ...]


class AskHead(Message, frozen=True):
    """What the asked peer knows of the asker's own journal, for an asker that may have lost some of it. Answered by
    `HeadKnown`."""


class HeadKnown(Message, frozen=True):
    """The asker's last checkpoint; empty when none is known."""

    checkpoint: bytes


class AskCosign(Message, frozen=True):
    """The asker's head (a checkpoint that it alone signed), for a witness to sign, too. Answered by `Cosigned`."""

    checkpoint: bytes


class Cosigned(Message, frozen=True):
    """The checkpoint with the witness's signature behind the owner's, or why there is none."""

    checkpoint: bytes = b""
    refused: str = ""


Question = AskEntries | AskHead | AskCosign
Gossip = HeadTold | ForkTold
