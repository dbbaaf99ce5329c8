"""Signed envelopes: sign bytes, never structs. docs/ledger.md has the format, with examples.

The signature covers the DSSE pre-authentication encoding (secure-systems-lab/dsse, protocol.md) of the body's type and
its exact bytes. Verify first, then parse those same bytes.
"""

from __future__ import annotations

import msgspec

from potluck_ledger.keys import KEY_BYTES, SIGNATURE_BYTES, PrivateKey, PublicKey

# Bodies are what the ledger has, and offers; nothing that is signed is larger.
BODY_BYTES_MAX = 64 << 10
SIGNATURES_MAX = 4
# The one way to sign that there is.
ED25519 = 1


class EnvelopeError(Exception):
    """The envelope is malformed, or a signature does not verify."""


class Signature(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`algorithm` is `ED25519`; `key` are the 32 bytes of the public key."""

    algorithm: int
    key: bytes
    signature: bytes

    @property
    def peer(self) -> str:
        """Who signed, as a peer id."""
        return PublicKey(self.key).peer


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`kind` names the type of `body`, e.g. "potluck/receipt/2"."""

    kind: str
    body: bytes
    signatures: tuple[Signature, ...]

    @property
    def signers(self) -> list[str]:
        """Their peer ids, in the order in which they signed."""
        return [signature.peer for signature in self.signatures]

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
    signatures = (*envelope.signatures, Signature(ED25519, key.public.raw, signature))
    return Envelope(envelope.kind, envelope.body, signatures)


def open_envelope(data: bytes, *kinds: str) -> Envelope:
    """Parse and verify one of some kinds. Every signature must hold and there must be at least one; signers are
    distinct.

    Raises `EnvelopeError`. The caller checks *who* signed.
    """
    try:
        envelope = msgspec.msgpack.decode(data, type=Envelope)
        canonical = envelope.encode()
    except (msgspec.DecodeError, UnicodeError) as error:
        raise EnvelopeError(f"not an envelope: {error}") from None
    if canonical != data:
        raise EnvelopeError("the envelope is not in canonical form")
    _check(envelope, kinds)
    return envelope


def _check(envelope: Envelope, kinds: tuple[str, ...]) -> None:
    if envelope.kind not in kinds:
        raise EnvelopeError(f"the envelope holds {envelope.kind[:64]!r} where {' or '.join(kinds)!r} was expected")
    if len(envelope.body) > BODY_BYTES_MAX:
        raise EnvelopeError("the body is too large")
    signers = {signature.key for signature in envelope.signatures}
    if not 1 <= len(envelope.signatures) <= SIGNATURES_MAX or len(signers) != len(envelope.signatures):
        raise EnvelopeError("an envelope has one to four signatures, by different peers")
    for signature in envelope.signatures:
        lengths = (len(signature.key), len(signature.signature))
        if signature.algorithm != ED25519 or lengths != (KEY_BYTES, SIGNATURE_BYTES):
            raise EnvelopeError("a signature is of a kind that is not known")
    message = pre_authentication_encoding(envelope.kind, envelope.body)
    for signature in envelope.signatures:
        if not PublicKey(signature.key).verify(message, signature.signature):
            raise EnvelopeError(f"the signature of {signature.peer} does not verify")
