"""Certificates bound to a node's key, by libp2p's TLS specification (libp2p/specs, tls/tls.md).

They are self-signed by a key of their own, which the node's key signs in an extension. Two nodes tell each other theirs
over the mesh before they connect, so each takes that one certificate and no other.
"""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from potluck_ledger.keys import KEY_BYTES, SIGNATURE_BYTES, PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")

# What is signed: this, then the certificate's public key.
_SIGNED_PREFIX = b"libp2p-tls-handshake:"

# SignedKey of the specification in DER, whose lengths are fixed for an Ed25519 key: a sequence of two strings, the
# first of which is a protobuf with the type Ed25519 (1) and 32 bytes of key.
_BEFORE_KEY, _BEFORE_SIGNATURE = bytes.fromhex("3068042408011220"), bytes.fromhex("0440")

# Ours have about 500 bytes; a peer's is parsed before anything else is known of it.
CERTIFICATE_BYTES_MAX = 4 << 10

# A node makes a new one whenever it starts, and clocks differ: so the time says nothing here.
_FROM, _UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(4096, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Certificate:
    """Ours, with the key that it certifies. `der` is what others see."""

    der: bytes
    pem: bytes

    def __repr__(self) -> str:
        """Without the key, for logs."""
        return f"Certificate({len(self.der)} bytes)"


def make_certificate(key: PrivateKey) -> Certificate:
    """A new one for the node that has `key`."""
    own = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(_SIGNED_PREFIX + _public_bytes(own.public_key()))
    signed_key = _BEFORE_KEY + key.public.raw + _BEFORE_SIGNATURE + signature
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "potluck")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.UnrecognizedExtension(EXTENSION, signed_key), critical=False)
        .sign(own, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    pem += own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(certificate.public_bytes(Encoding.DER), pem)


def peer_of(der: bytes) -> str:
    """The peer to whose key a certificate is bound. Raises `ValueError` when it is bound to none."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise ValueError(f"a certificate of {len(der)} bytes is too large")
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(certificate)
        extension = certificate.extensions.get_extension_for_oid(EXTENSION).value
        public = certificate.public_key()
    except InvalidSignature:
        raise ValueError("a certificate is not signed by its own key") from None
    except Exception as error:  # noqa: BLE001 - parsers of others' bytes raise many kinds
        raise ValueError(f"a certificate cannot be read: {error}") from None
    if not isinstance(extension, x509.UnrecognizedExtension) or not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("a certificate has another kind of key than P-256")
    return _signer(extension.value, _public_bytes(public))


def _signer(signed_key: bytes, public: bytes) -> str:
    middle = len(_BEFORE_KEY) + KEY_BYTES
    end = middle + len(_BEFORE_SIGNATURE)
    head, between = signed_key[: len(_BEFORE_KEY)], signed_key[middle:end]
    if (head, between, len(signed_key)) != (_BEFORE_KEY, _BEFORE_SIGNATURE, end + SIGNATURE_BYTES):
        raise ValueError("a certificate names no Ed25519 key")
    key = PublicKey(signed_key[len(_BEFORE_KEY) : middle])
    if not key.verify(_SIGNED_PREFIX + public, signed_key[end:]):
        raise ValueError("a certificate is not signed by the key that it names")
    return key.peer


def _public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tls_context(own: Certificate, theirs: bytes, *, server_side: bool) -> ssl.SSLContext:
    """TLS 1.3, in which each side proves that it has the key of its certificate; `theirs` is the only one accepted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=theirs)
    if server_side:
        context.num_tickets = 0  # every lane is opened anew
    with _file(own.pem) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """OpenSSL's binding reads keys from files alone; this one is in memory, and nobody else's."""
    descriptor = os.memfd_create("potluck-lane", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
