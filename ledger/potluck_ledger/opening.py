"""How far this node has verified its own journal, so that opening it checks the signatures of what is new alone. Pure.

A note under the node's own key names the last entry that was verified, and the sums up to there. All entries before are
held against it by their digests: each is named by the one behind it, and the last by the note, so that a byte that has
changed since is found as surely as by the signatures. What is trusted is BLAKE3, and that nobody else has the key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from blake3 import blake3

from potluck_ledger.balance import Accounts
from potluck_ledger.bodies import packed
from potluck_ledger.entries import Entry, Receipt
from potluck_ledger.envelope import Envelope, EnvelopeError, open_envelope, seal
from potluck_ledger.keys import PrivateKey, PublicKey

# Of a note. It stays on this machine, and gets another number when `Accounts` counts otherwise: then all is verified.
KIND = "potluck/opened/1"


class Note(NamedTuple):
    """Up to this entry of this digest all was verified; nothing where there is no note."""

    sequence: int
    head: bytes


class Row(NamedTuple):
    """As it is kept: with the digest that others know it by."""

    digest: bytes
    entry: bytes
    content: bytes


def write(key: PrivateKey, note: Note, accounts: Accounts) -> tuple[bytes, bytes]:
    """The envelope of a note, and the sums that it is about."""
    sums = accounts.state()
    return seal(key, KIND, msgspec.msgpack.encode((*note, blake3(sums).digest()))).encode(), sums


def read(owner: str, envelope: bytes, sums: bytes) -> Note:
    """Raises `EnvelopeError` for one that is damaged, or another node's."""
    found = open_envelope(envelope, KIND)
    try:
        sequence, head, digest = msgspec.msgpack.decode(found.body, type=tuple[int, bytes, bytes])
    except msgspec.DecodeError as error:
        raise EnvelopeError(f"not a note: {error}") from None
    if found.signers != [owner] or digest != blake3(sums).digest():
        raise EnvelopeError("the note is another node's, or of other sums")
    return Note(sequence, head)


def check(owner: str, note: Note, rows: Iterable[Row]) -> set[tuple[str, str]]:
    """Hold the first entries of a journal against a note. Returns the leases of which there is a receipt of both, by
    peer and name. Raises `EnvelopeError` unless they are those entries."""
    sequence, head, settled = 0, bytes(32), set()
    for row in rows:
        sequence += 1
        try:
            entry = packed(msgspec.msgpack.decode(row.entry, type=Envelope).body, Entry)
            settled |= _settled(owner, row.content)
        except msgspec.DecodeError as error:
            raise EnvelopeError(f"entry {sequence} cannot be read: {error}") from None
        if (entry.sequence, entry.previous) != (sequence, head):
            raise EnvelopeError(f"entry {sequence} does not follow the one before")
        if entry.content != blake3(row.content).digest():
            raise EnvelopeError(f"entry {sequence} records something else than is kept")
        head = blake3(row.entry).digest()
        if head != row.digest:
            raise EnvelopeError(f"entry {sequence} has another digest than is kept")
    if (sequence, head) != note:
        raise EnvelopeError(f"entry {sequence} is not the one that was verified")
    return settled


def _settled(owner: str, content: bytes) -> set[tuple[str, str]]:
    envelope = msgspec.msgpack.decode(content, type=Envelope)
    if envelope.kind != Receipt.KIND or len(envelope.signatures) != 2:
        return set()
    receipt = packed(envelope.body, Receipt)
    caller, provider = PublicKey(receipt.caller).peer, PublicKey(receipt.provider).peer
    return {(caller if provider == owner else provider, receipt.lease)}
