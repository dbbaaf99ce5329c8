"""Proofs that somebody keeps two journals: two statements under one key that cannot both be true. Pure.

A proof is the two envelopes, and needs nothing else to be checked: entries or checkpoints of one owner and one sequence
number that name different histories. Certificate Transparency's monitors look for the same (RFC 6962, section 5).
"""

from __future__ import annotations

import msgspec

from potluck_ledger.bodies import decode
from potluck_ledger.entries import Checkpoint, Entry
from potluck_ledger.envelope import Envelope, EnvelopeError, open_envelope
from potluck_ledger.journal import digest

# Two statements of at most 160 bytes, each with up to four signatures.
PROOF_BYTES_MAX = 1500


class Fork(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Two envelopes that contradict each other, the smaller one first."""

    one: bytes
    other: bytes

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def prove(one: bytes, other: bytes) -> Fork:
    """Raises `EnvelopeError` unless the two contradict each other."""
    fork = Fork(*sorted((one, other)))
    read_fork(fork.encode())
    return fork


def read_fork(data: bytes) -> str:
    """Check a proof; returns the peer id of whom it convicts. Raises `EnvelopeError`."""
    if len(data) > PROOF_BYTES_MAX:
        raise EnvelopeError(f"a proof has at most {PROOF_BYTES_MAX} bytes")
    try:
        fork = msgspec.msgpack.decode(data, type=Fork)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise EnvelopeError(f"not a proof: {error}") from None
    if fork.encode() != data:
        raise EnvelopeError("the proof is not in canonical form")
    (owner, one), (other_owner, other) = _statement(fork.one), _statement(fork.other)
    if owner != other_owner or one.sequence != other.sequence:
        raise EnvelopeError("the two are of different owners, or of different entries")
    if not _contradict(fork, one, other):
        raise EnvelopeError("the two can both be true")
    return owner


def read_both(data: bytes) -> tuple[str, Fork]:
    """A proof with whom it convicts. Raises `EnvelopeError`."""
    return read_fork(data), msgspec.msgpack.decode(data, type=Fork)


def tell(data: bytes) -> str:
    """A proof in words, both statements with the first 16 digits of what they name. Raises `EnvelopeError`."""
    owner, fork = read_both(data)
    return f"{owner} keeps two journals: it signed {_words(fork.one)}, and {_words(fork.other)}"


def _words(data: bytes) -> str:
    _, body = _statement(data)
    if isinstance(body, Entry):
        return f"entry {body.sequence} {digest(data).hex()[:16]} that records {body.content.hex()[:16]}"
    return f"that its entry {body.sequence} is {body.head.hex()[:16]}"


def _statement(data: bytes) -> tuple[str, Entry | Checkpoint]:
    envelope = open_envelope(data, Entry.KIND, Checkpoint.KIND)
    body: Entry | Checkpoint
    body = decode(envelope.body, Entry) if envelope.kind == Entry.KIND else decode(envelope.body, Checkpoint)
    return _owner(envelope, body), body


def _owner(envelope: Envelope, body: Entry | Checkpoint) -> str:
    """Entries are signed by their owner alone, checkpoints by the owner they name first."""
    signers = envelope.signers
    if isinstance(body, Checkpoint) and signers[0] != body.owner:
        raise EnvelopeError("a checkpoint is signed by its owner first")
    if isinstance(body, Entry) and len(signers) != 1:
        raise EnvelopeError("an entry is signed by its owner alone")
    return signers[0]


def _contradict(fork: Fork, one: Entry | Checkpoint, other: Entry | Checkpoint) -> bool:
    if isinstance(one, Entry) and isinstance(other, Entry):
        return one != other
    if isinstance(one, Checkpoint) and isinstance(other, Checkpoint):
        return one.head != other.head
    checkpoint, entry = (one, fork.other) if isinstance(one, Checkpoint) else (other, fork.one)
    assert isinstance(checkpoint, Checkpoint)
    return checkpoint.head != digest(entry)
