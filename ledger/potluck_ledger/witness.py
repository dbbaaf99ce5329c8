"""Witnesses cosign the heads of others' journals: of one owner only such that lead from one to the next. Pure.

Whoever cosigned a head has said that it saw no other history, so a witness keeps what it is about to sign before it
signs: one that dies in between never signs another. As the witnesses of Certificate Transparency's logs do (C2SP,
tlog-witness).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from potluck_ledger.bodies import decode
from potluck_ledger.entries import Checkpoint, Entry, read
from potluck_ledger.envelope import SIGNATURES_MAX, Envelope, EnvelopeError, Signature, open_envelope
from potluck_ledger.journal import GENESIS, digest

# An envelope has so many signatures at most, of which one is the owner's.
WITNESSES_MAX = SIGNATURES_MAX - 1


class Seen(NamedTuple):
    """What is known to be the owner's history: its entry of this number has this digest."""

    sequence: int
    head: bytes


NOTHING = Seen(0, GENESIS)


class Asked:
    """One head that an owner wants cosigned, after the one that was.

    Raises `EnvelopeError` for a head that does not hold, or is not ahead."""

    def __init__(self, data: bytes, owner: str, last: Seen) -> None:
        self.checkpoint = read(data, Checkpoint, owner)
        self._seen, self._owner = last, owner
        if self.checkpoint.owner != owner:
            raise EnvelopeError("a checkpoint is signed by its owner")
        if self.checkpoint.sequence < max(1, last.sequence):
            raise EnvelopeError("a later head of this journal is cosigned already")
        if self.contradicts:
            raise EnvelopeError("another head of this number is cosigned already")

    @property
    def contradicts(self) -> bool:
        """Whether it names another history than what was cosigned."""
        return self.checkpoint.sequence == self._seen.sequence and self.checkpoint.head != self._seen.head

    @property
    def is_shown(self) -> bool:
        """Whether what was seen leads to the head: then it may be kept, and then signed."""
        return self._seen == (self.checkpoint.sequence, self.checkpoint.head)

    @property
    def after(self) -> int:
        """The number of the last entry that was seen: those behind it are wanted."""
        return self._seen.sequence

    def came(self, entries: Sequence[bytes]) -> None:
        """Check some more. Raises `EnvelopeError` when they do not lead from what was seen to the head."""
        if not entries:
            raise EnvelopeError("the owner shows no entries")
        for data in entries:
            entry = read(data, Entry, self._owner)
            if (entry.sequence, entry.previous) != (self._seen.sequence + 1, self._seen.head):
                raise EnvelopeError("the entries do not lead from the head that was cosigned")
            self._seen = Seen(entry.sequence, digest(data))
            if entry.sequence == self.checkpoint.sequence:
                break
        if self.contradicts:
            raise EnvelopeError("the entries lead to another head")


def joined(ours: bytes, answers: Sequence[bytes], witnesses: Sequence[str], needed: int) -> bytes:
    """Our checkpoint with the signatures of `needed` of these witnesses, in their order; b"" when there are fewer.
    Answers that do not hold count for nothing."""
    envelope, found = open_envelope(ours, Checkpoint.KIND), {}
    for answer in answers:
        for signature in _signatures(answer, envelope):
            found[signature.peer] = signature
    kept = [found[peer] for peer in witnesses if peer in found and peer not in envelope.signers][:needed]
    signatures = (*envelope.signatures, *kept)
    return Envelope(envelope.kind, envelope.body, signatures).encode() if len(kept) >= needed else b""


def _signatures(answer: bytes, ours: Envelope) -> tuple[Signature, ...]:
    try:
        envelope = open_envelope(answer, Checkpoint.KIND)
    except EnvelopeError:
        return ()
    return envelope.signatures if envelope.body == ours.body else ()


def read_cosigned(data: bytes, owner: str) -> tuple[Checkpoint, list[str]]:
    """A checkpoint of an owner's, and who cosigned it. Raises `EnvelopeError`."""
    envelope = open_envelope(data, Checkpoint.KIND)
    checkpoint = decode(envelope.body, Checkpoint)
    if envelope.signers[0] != owner or checkpoint.owner != owner:
        raise EnvelopeError("a checkpoint is signed by its owner first")
    return checkpoint, envelope.signers[1:]
