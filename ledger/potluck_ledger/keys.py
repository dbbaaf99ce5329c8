"""Ed25519 identities and the libp2p peer ids derived from them.

A peer id is the base58btc form of an identity multihash over the protobuf-encoded public key
(libp2p specification "Peer Ids and Keys"); all Ed25519 ids begin with 12D3KooW.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
# An Ed25519 peer id has 52.
PEER_CHARS_MAX = 60
# Ids whose two forms are remembered; computing one takes 10 µs.
KEYS_KEPT = 4096
# Signatures that are known to hold, and over how long messages: those of a thousand leases. A KiB each at most.
SIGNATURES_KEPT, KEPT_BYTES_MAX = 4096, 1024

# RFC 8032, section 5.1: the field's prime, the order of the group, and which bits of a point are its y.
_PRIME = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_Y_MASK = (1 << 255) - 1
# The y of the eight points whose order divides 8, with either sign of x.
_SMALL_ORDER = frozenset(
    (
        0,
        1,
        _PRIME - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    )
)

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
        return _peer_of(self.raw)

    @classmethod
    def of_peer(cls, peer: str) -> PublicKey:
        """The key inside an Ed25519 peer id. Raises `ValueError` for any other id."""
        return cls(_key_of(peer))

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message`: RFC 8032, and more strictly than it asks.

        One key and one signature have one encoding (y < p, S < L), and neither the key nor R is one of the points of
        small order, under which one signature fits many messages (Chalkias et al., "Taming the many EdDSAs", 2020).
        R is compared byte for byte, as libsodium does: without the cofactor.
        """
        if len(signature) != SIGNATURE_BYTES or len(self.raw) != KEY_BYTES:
            return False
        if (self.raw, message, signature) in _known:
            return True
        if not _holds(self.raw, message, signature):
            return False
        _remember(self.raw, message, signature)
        return True


def _holds(raw: bytes, message: bytes, signature: bytes) -> bool:
    point, scalar = signature[:KEY_BYTES], int.from_bytes(signature[KEY_BYTES:], "little")
    if not _is_sound_key(raw) or not _is_sound(point) or scalar >= _ORDER:
        return False
    try:
        crypto_sign_open(signature + message, raw)
    except BadSignatureError:
        return False
    return True


# What a peer sent is read when it comes, compared, and read once more before it is kept; and so is what we signed.
_known: set[tuple[bytes, bytes, bytes]] = set()


def _remember(raw: bytes, message: bytes, signature: bytes) -> None:
    if len(message) <= KEPT_BYTES_MAX:
        if len(_known) >= SIGNATURES_KEPT:
            _known.clear()
        _known.add((raw, message, signature))


def _is_sound(point: bytes) -> bool:
    """Whether it is the one encoding of a point (its y is less than p), and not of one of small order."""
    y = int.from_bytes(point, "little") & _Y_MASK
    return y < _PRIME and y not in _SMALL_ORDER


@lru_cache(KEYS_KEPT)
def _is_sound_key(raw: bytes) -> bool:
    return _is_sound(raw)


@lru_cache(KEYS_KEPT)
def _peer_of(raw: bytes) -> str:
    return _base58(_PEER_PREFIX + raw)


@lru_cache(KEYS_KEPT)
def _key_of(peer: str) -> bytes:
    # Longer texts are not even read: what base58 costs grows with the square of their length.
    data = _unbase58(peer) if len(peer) <= PEER_CHARS_MAX else b""
    if len(data) != len(_PEER_PREFIX) + KEY_BYTES or not data.startswith(_PEER_PREFIX):
        raise ValueError(f"{peer[:PEER_CHARS_MAX]!r} is not the id of an Ed25519 peer")
    return data[len(_PEER_PREFIX) :]


def is_ed25519(peer: str) -> bool:
    """Whether it is the id of an Ed25519 peer."""
    try:
        _key_of(peer)
    except ValueError:
        return False
    return True


class PrivateKey:
    """A node's identity. Never logged, never pickled, never sent."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise ValueError(f"a seed has {KEY_BYTES} bytes")
        public, self._secret = crypto_sign_seed_keypair(seed)
        self.public = PublicKey(public)

    @classmethod
    def generate(cls) -> PrivateKey:
        return cls(os.urandom(KEY_BYTES))

    @property
    def peer(self) -> str:
        return self.public.peer

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for the transport's own handshake only."""
        return self._secret[:KEY_BYTES]

    def sign(self, message: bytes) -> bytes:
        signature = crypto_sign(message, self._secret)[:SIGNATURE_BYTES]
        _remember(self.public.raw, message, signature)
        return signature

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
