"""Certificates of lanes: bound to one node's key, and read by the library that defines them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from libp2p.peer.id import ID
from libp2p.security.tls.certificate import verify_certificate_chain

from potluck_ledger.keys import PrivateKey
from potluck_node.transport.lane.certificate import CERTIFICATE_BYTES_MAX, EXTENSION, make_certificate, peer_of

KEY = PrivateKey.generate()
DER = make_certificate(KEY).der


def extension_of(der: bytes) -> bytes:
    value = x509.load_der_x509_certificate(der).extensions.get_extension_for_oid(EXTENSION).value
    assert isinstance(value, x509.UnrecognizedExtension)
    return value.value


def built(extension: bytes | None, key=None, signer=None) -> bytes:
    """A certificate of anybody's making."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
    )
    if extension is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, extension), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer or key, digest).public_bytes(Encoding.DER)


def test_it_names_the_peer():
    assert peer_of(DER) == KEY.peer


def test_the_library_of_the_specification_reads_it_too():
    key = verify_certificate_chain([x509.load_der_x509_certificate(DER)])
    assert str(ID.from_pubkey(key)) == KEY.peer


def test_what_another_certificate_says_cannot_be_copied():
    """An impostor has our certificate, which everybody sees, and puts our extension into one of its own."""
    with pytest.raises(ValueError, match="not signed by the key that it names"):
        peer_of(built(extension_of(DER)))


def test_an_impostor_cannot_name_us():
    theirs = extension_of(make_certificate(PrivateKey.generate()).der)
    forged = theirs[:8] + KEY.public.raw + theirs[40:]
    with pytest.raises(ValueError, match="not signed by the key that it names"):
        peer_of(built(forged))


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (lambda: built(None), "cannot be read"),
        (lambda: built(b""), "names no Ed25519 key"),
        (lambda: built(extension_of(DER) + b"x"), "names no Ed25519 key"),
        (lambda: built(extension_of(DER), key=ed25519.Ed25519PrivateKey.generate()), "another kind of key"),
        (lambda: built(extension_of(DER), signer=ec.generate_private_key(ec.SECP256R1())), "not signed by its own"),
        (lambda: DER + bytes(CERTIFICATE_BYTES_MAX), "too large"),
        (lambda: b"", "cannot be read"),
    ],
)
def test_what_is_none_is_refused(der, why):
    with pytest.raises(ValueError, match=why):
        peer_of(der())


@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_no_bit_can_be_changed(position, change):
    changed = bytearray(DER)
    changed[position] ^= change
    with pytest.raises(ValueError, match=r"."):
        peer_of(bytes(changed))


def test_it_does_not_show_its_key():
    assert "PRIVATE" not in repr(make_certificate(KEY))
