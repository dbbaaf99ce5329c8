"""Secrets under a node's key: locked at rest by the node for itself, and sealed for another node.

At rest: ChaCha20-Poly1305 (RFC 8439) under a key that HKDF-SHA256 (RFC 5869) derives from the node's seed. For another
node: libsodium's sealed box (X25519, XSalsa20-Poly1305) to its Ed25519 key, mapped to X25519 as libsodium does.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.exceptions import CryptoError
from nacl.public import SealedBox
from nacl.signing import SigningKey, VerifyKey

from potluck_ledger.keys import KEY_BYTES, PrivateKey, PublicKey

# Begins all that is locked, and nothing that was stored before there were locks.
MARK = b"\xc1potluck-locked-1\n"
NONCE_BYTES = 12
# What locking adds: mark, nonce, and the tag of RFC 8439.
LOCK_BYTES = len(MARK) + NONCE_BYTES + 16
# What a sealed box is for goes in front of what is in it, with its length in so many bytes.
_LENGTH_BYTES = 2


class SealError(Exception):
    """What was locked or sealed cannot be opened: by another key, for another use, or damaged."""


class Vault:
    """Locks what only this node may read. `context` says what it is: locked for one use, it opens for no other."""

    def __init__(self, key: PrivateKey) -> None:
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"potluck: secrets at rest, 1").derive(key.seed)
        self._cipher = ChaCha20Poly1305(derived)

    def lock(self, data: bytes, context: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return MARK + nonce + self._cipher.encrypt(nonce, data, context.encode())

    def unlock(self, locked: bytes, context: str) -> bytes:
        """Raises `SealError`."""
        if not is_locked(locked):
            raise SealError("it was never locked")
        nonce, rest = locked[len(MARK) :][:NONCE_BYTES], locked[len(MARK) + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, rest, context.encode())
        except (InvalidTag, ValueError):
            raise SealError("it was locked by another key, for another use, or is damaged") from None

    def __repr__(self) -> str:
        return "<Vault>"


def is_locked(data: bytes) -> bool:
    """Whether `Vault.lock` made it."""
    return data[: len(MARK)] == MARK


def seal(public: PublicKey, data: bytes, context: str) -> bytes:
    """For the owner of a key alone. Raises `SealError` for what is no key."""
    what = context.encode()
    try:
        box = SealedBox(VerifyKey(public.raw).to_curve25519_public_key())
    except (CryptoError, ValueError, RuntimeError):
        raise SealError("nothing can be sealed to this key") from None
    return bytes(box.encrypt(len(what).to_bytes(_LENGTH_BYTES, "big") + what + data))


def unseal(key: PrivateKey, sealed: bytes, context: str) -> bytes:
    """Raises `SealError`."""
    box = SealedBox(SigningKey(key.seed).to_curve25519_private_key())
    try:
        opened = bytes(box.decrypt(sealed))
    except (CryptoError, ValueError, TypeError):
        raise SealError("it was sealed to another key, or is damaged") from None
    size = int.from_bytes(opened[:_LENGTH_BYTES], "big")
    what, data = opened[_LENGTH_BYTES:][:size], opened[_LENGTH_BYTES + size :]
    if what != context.encode():
        raise SealError("it was sealed for another use")
    return data
