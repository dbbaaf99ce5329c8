"""What is signed has one encoding, and nothing else is read."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_ledger import entries
from potluck_ledger.bodies import NUMBER_MAX, decode, encode
from potluck_ledger.envelope import EnvelopeError, open_envelope
from potluck_ledger.keys import PrivateKey

ONE, OTHER = PrivateKey(bytes(32)), PrivateKey(bytes([1]) * 32)
NUMBERS, NONCES, DIGESTS = (
    st.integers(0, NUMBER_MAX),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
)
TEXTS = st.text(max_size=8)

VOUCHERS = st.builds(entries.Voucher, TEXTS, st.just(ONE.peer), st.just(OTHER.peer), NUMBERS, NUMBERS, NUMBERS)
DISPUTES = st.builds(
    entries.Dispute, st.just(ONE.peer), st.just(OTHER.peer), TEXTS, NUMBERS, NUMBERS, NUMBERS, DIGESTS, TEXTS
)
TRANSFERS = st.builds(entries.Transfer, st.just(ONE.peer), st.just(OTHER.peer), NUMBERS, NUMBERS, NONCES, TEXTS)
CHECKPOINTS = st.builds(entries.Checkpoint, st.just(ONE.peer), NUMBERS, DIGESTS, NUMBERS, NUMBERS, NUMBERS)
ENTRIES = st.builds(entries.Entry, st.integers(1, NUMBER_MAX), DIGESTS, NUMBERS, DIGESTS)
BODIES = st.one_of(VOUCHERS, DISPUTES, TRANSFERS, CHECKPOINTS, ENTRIES)


@given(BODIES)
def test_what_is_encoded_is_read_again(body):
    assert decode(encode(body), type(body)) == body


@given(BODIES, st.data())
def test_one_value_has_one_encoding(body, data):
    """Any change is another value, or is not read."""
    encoded = bytearray(encode(body))
    position = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[position // 8] ^= 1 << position % 8
    try:
        assert decode(bytes(encoded), type(body)) != body
    except EnvelopeError:
        return


@given(st.binary(max_size=200), st.sampled_from([*entries.CONTENTS.values(), entries.Entry]))
def test_garbage_raises_one_kind_of_error(data, kind):
    with pytest.raises(EnvelopeError):
        decode(data, kind)


def test_longer_forms_of_a_number_are_refused():
    body = entries.Voucher("l", ONE.peer, OTHER.peer, 1, 2, 3)
    encoded = encode(body)
    # 3 as a byte of its own, and as one behind 0xcc.
    assert encoded.endswith(b"\x03")
    with pytest.raises(EnvelopeError, match="canonical"):
        decode(encoded[:-1] + b"\xcc\x03", entries.Voucher)


@pytest.mark.parametrize("value", [-1, 2**63, 2**64])
def test_numbers_that_cannot_be_are_refused(value):
    packed = ["l", ONE.public.raw, OTHER.public.raw, 1, value, 3]
    if value < 2**64:
        with pytest.raises(EnvelopeError):
            decode(msgspec.msgpack.encode(packed), entries.Voucher)
    with pytest.raises(EnvelopeError):
        entries.sign(ONE, entries.Voucher("l", ONE.peer, OTHER.peer, 1, min(value, 2**63), 3))


@pytest.mark.parametrize(
    "body",
    [
        entries.Voucher("l", ONE.peer, ONE.peer, 1, 2, 3),
        entries.Voucher("l", "nobody", ONE.peer, 1, 2, 3),
        entries.Grant(ONE.peer, "lab", "planet", "x", "", 1, 0, 0, 1, bytes(16)),
        entries.Grant(ONE.peer, "lab", "user", "x", "", 1, 0, 5, 5, bytes(16)),
        entries.Grant(ONE.peer, "lab", "user", "x", "", 1, 0, 0, 1, bytes(15)),
        entries.Transfer(ONE.peer, ONE.peer, 1, 1, bytes(16)),
        entries.Transfer(ONE.peer, OTHER.peer, 1, 1, bytes(17)),
        entries.Dispute(ONE.peer, ONE.peer, "l", 1, 1, 1, bytes(32), ""),
        entries.Dispute(ONE.peer, OTHER.peer, "l", 1, 1, 1, bytes(3), ""),
        entries.Checkpoint(ONE.peer, 1, bytes(3), 1, 1, 1),
        entries.Entry(0, bytes(32), 1, bytes(32)),
        entries.Entry(1, bytes(31), 1, bytes(32)),
    ],
)
def test_what_makes_no_sense_is_not_signed(body):
    with pytest.raises(EnvelopeError):
        entries.sign(ONE, body)


def test_grants_are_signed_by_their_admin():
    grant = entries.Grant(ONE.peer, "lab", "user", "maria", "H100", 3600, 7, 0, 9, bytes(16))
    assert entries.read_content(entries.sign(ONE, grant).encode())[1] == grant
    with pytest.raises(EnvelopeError, match="somebody else"):
        entries.read_content(entries.sign(OTHER, grant).encode())


def test_proofs_are_small():
    """Two entries of one number, as everybody is shown them."""
    entry = entries.Entry(NUMBER_MAX, bytes(32), NUMBER_MAX, bytes(32))
    assert len(entries.sign(ONE, entry).encode()) < 250


def test_a_body_of_one_kind_is_not_read_as_another():
    sealed = entries.sign(ONE, entries.Entry(1, bytes(32), 1, bytes(32))).encode()
    with pytest.raises(EnvelopeError, match="expected"):
        entries.read(sealed, entries.Checkpoint, ONE.peer)
    assert open_envelope(sealed, entries.Entry.KIND).signers == [ONE.peer]
