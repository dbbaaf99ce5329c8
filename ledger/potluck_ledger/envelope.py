"""Signed envelopes: sign bytes, never structs.

The signature covers the DSSE pre-authentication encoding (secure-systems-lab/dsse, protocol.md) of the body's type and
its exact bytes. Verify first, then parse those same bytes.
"""

from __future__ import annotations

import msgspec

from potluck_ledger.keys import PrivateKey, PublicKey

# Bodies are receipts and offers; nothing that is signed is larger.
BODY_BYTES_MAX = 64 << 10
SIGNATURES_MAX = 4


class EnvelopeError(Exception):
    """The envelope is malformed, or a signature does not verify."""


class Signature(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    peer: str
    signature: bytes


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`kind` names the type of `body`, e.g. "potluck/receipt/1"."""

    kind: str
    body: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def pre_authentication_encoding(kind: str, body: bytes) -> bytes:
    """DSSE PAE: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body, lengths in decimal bytes."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(body), body)


def seal(key: PrivateKey, kind: str, body: bytes) -> Envelope:
    """Sign `body`. Raises `EnvelopeError` when it is too large."""
    if len(body) > BODY_BYTES_MAX:
        raise EnvelopeError(f"a body of {len(body)} bytes is over the limit of {BODY_BYTES_MAX}")
    return countersign(key, Envelope(kind, body, ()))


def countersign(key: PrivateKey, envelope: Envelope) -> Envelope:
    """Add a signature over the same bytes."""
    signature = key.sign(pre_authentication_encoding(envelope.kind, envelope.body))
    return Envelope(envelope.kind, envelope.body, (*envelope.signatures, Signature(key.peer, signature)))


def open_envelope(data: bytes, kind: str) -> Envelope:
    """Parse and verify. Every signature must hold and there must be at least one; signers are distinct.

    Raises `EnvelopeError`. The caller checks *who* signed.
    """
    try:
        envelope = msgspec.msgpack.decode(data, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"not an envelope: {error}") from None
    if envelope.encode() != data:
        raise EnvelopeError("the envelope is not in canonical form")
    _check(envelope, kind)
    return envelope


def _check(envelope: Envelope, kind: str) -> None:
    if envelope.kind != kind:
        raise EnvelopeError(f"the envelope holds {envelope.kind!r} where {kind!r} was expected")
    if len(envelope.body) > BODY_BYTES_MAX:
        raise EnvelopeError("the body is too large")
    signers = [signature.peer for signature in envelope.signatures]
    if not 1 <= len(signers) <= SIGNATURES_MAX or len(set(signers)) != len(signers):
        raise EnvelopeError("an envelope has one to four signatures, by different peers")
    message = pre_authentication_encoding(envelope.kind, envelope.body)
    for signature in envelope.signatures:
        try:
            key = PublicKey.of_peer(signature.peer)
        except ValueError as error:
            raise EnvelopeError(str(error)) from None
        if not key.verify(message, signature.signature):
            raise EnvelopeError(f"the signature of {signature.peer} does not verify")
