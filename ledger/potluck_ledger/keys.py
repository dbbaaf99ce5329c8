"""Ed25519 identities and the libp2p peer ids derived from them.

A peer id is the base58btc form of an identity multihash over the protobuf-encoded public key
(libp2p specification "Peer Ids and Keys"); all Ed25519 ids begin with 12D3KooW.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64

# Identity multihash (0x00), 36 bytes: protobuf field 1 = key type Ed25519 (1), field 2 = 32 bytes of key.
_PEER_PREFIX = bytes.fromhex("002408011220")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class KeyFileError(Exception):
    """The key file is missing, readable by others, or not a key."""


@dataclass(frozen=True)
class PublicKey:
    """A peer's public key: 32 raw bytes."""

    raw: bytes

    @cached_property
    def peer(self) -> str:
        """The libp2p peer id."""
        return _base58(_PEER_PREFIX + self.raw)

    @classmethod
    def of_peer(cls, peer: str) -> PublicKey:
        """The key inside an Ed25519 peer id. Raises `ValueError` for any other id."""
        data = _unbase58(peer)
        if len(data) != len(_PEER_PREFIX) + KEY_BYTES or not data.startswith(_PEER_PREFIX):
            raise ValueError(f"{peer!r} is not the id of an Ed25519 peer")
        return cls(data[len(_PEER_PREFIX) :])

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message` (RFC 8032)."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """A node's identity. Never logged, never pickled, never sent."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> PrivateKey:
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def peer(self) -> str:
        return self.public.peer

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for the transport's own handshake only."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.peer}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("private keys are not pickled")


def load_or_create(path: Path) -> PrivateKey:
    """Read the key at `path`, or make one with mode 0600. Raises `KeyFileError` when it is unsafe or damaged."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load(path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(PrivateKey.generate().seed)
        file.flush()
        os.fsync(file.fileno())
    return _load(path)


def _load(path: Path) -> PrivateKey:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise KeyFileError(f"{path} can be read by others (mode {mode:o}); run: chmod 600 {path}")
    seed = path.read_bytes()
    if len(seed) != KEY_BYTES:
        raise KeyFileError(f"{path} is not a key: {len(seed)} bytes instead of {KEY_BYTES}; restore it from a backup")
    return PrivateKey(seed)


def _base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, rest = divmod(number, 58)
        digits = _BASE58[rest] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + digits


def _unbase58(text: str) -> bytes:
    number = 0
    for letter in text:
        digit = _BASE58.find(letter)
        if digit < 0:
            raise ValueError(f"{text!r} is not base58")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
