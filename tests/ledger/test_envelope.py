import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_ledger.envelope import (
    BODY_BYTES_MAX,
    Envelope,
    EnvelopeError,
    countersign,
    open_envelope,
    pre_authentication_encoding,
    seal,
)
from potluck_ledger.keys import PrivateKey

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()


def test_the_encoding_is_dsses():
    # The example of the DSSE specification, protocol.md.
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_both_signatures_hold_over_the_same_bytes():
    envelope = countersign(OTHER, seal(KEY, "kind", b"body"))
    opened = open_envelope(envelope.encode(), "kind")
    assert [each.peer for each in opened.signatures] == [KEY.peer, OTHER.peer]
    assert opened.body == b"body"


@given(st.data())
def test_any_flipped_bit_is_noticed(data):
    sealed = bytearray(seal(KEY, "kind", b"some body").encode())
    position = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[position // 8] ^= 1 << position % 8
    with pytest.raises(EnvelopeError):
        open_envelope(bytes(sealed), "kind")


@given(st.binary(max_size=300))
def test_garbage_raises_one_kind_of_error(data):
    with pytest.raises(EnvelopeError):
        open_envelope(data, "kind")


def test_another_kind_is_refused():
    with pytest.raises(EnvelopeError, match="expected"):
        open_envelope(seal(KEY, "receipt", b"").encode(), "offer")


def test_a_signature_does_not_carry_over_to_another_kind():
    sealed = seal(KEY, "one", b"body")
    with pytest.raises(EnvelopeError, match="verify"):
        open_envelope(Envelope("two", sealed.body, sealed.signatures).encode(), "two")


def test_unsigned_and_doubly_signed_envelopes_are_refused():
    with pytest.raises(EnvelopeError, match="one to four"):
        open_envelope(Envelope("kind", b"", ()).encode(), "kind")
    with pytest.raises(EnvelopeError, match="different peers"):
        open_envelope(countersign(KEY, seal(KEY, "kind", b"")).encode(), "kind")


def test_non_canonical_bytes_are_refused():
    sealed = seal(KEY, "kind", b"body")
    longer = msgspec.msgpack.encode([*msgspec.to_builtins(sealed, builtin_types=(bytes,)), None])
    with pytest.raises(EnvelopeError):
        open_envelope(longer, "kind")


def test_a_body_that_is_too_large_is_refused():
    with pytest.raises(EnvelopeError, match="limit"):
        seal(KEY, "kind", bytes(BODY_BYTES_MAX + 1))
