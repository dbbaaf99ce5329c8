"""Heads of volumes: which tree is a volume's newest version, signed by the node that it belongs to."""

from __future__ import annotations

import msgspec
from blake3 import blake3

from potluck_ledger.envelope import EnvelopeError, open_envelope, seal
from potluck_ledger.keys import PrivateKey

HEAD_KIND = "potluck/volume-head/1"

# Of whoever committed, and of what it was; both are shown to users.
TEXT_MAX = 200


class VolumeHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One version of a volume, which is called `name`, "" for one that ends with its program. `image` is its tree's id
    in hex, `parent` the BLAKE3 digest in hex of the envelope of the version before, "" for the first. `by` says who
    committed, `what` how. `changed` and `removed` count entries that differ from the version before, `files` and
    `bytes` all. `at_us` is Unix time in microseconds."""

    volume: str
    version: int
    image: str
    parent: str
    at_us: int
    by: str
    what: str
    changed: int
    removed: int
    files: int
    bytes: int
    name: str


def sign_head(key: PrivateKey, head: VolumeHead) -> bytes:
    """The head's envelope. Raises `EnvelopeError` when a text is too long."""
    if max(len(head.by), len(head.what)) > TEXT_MAX:
        raise EnvelopeError("a text of the head is too long")
    return seal(key, HEAD_KIND, msgspec.msgpack.encode(head)).encode()


def read_head(data: bytes) -> tuple[VolumeHead, str]:
    """The head, and who signed it. Raises `EnvelopeError`."""
    envelope = open_envelope(data, HEAD_KIND)
    try:
        head = msgspec.msgpack.decode(envelope.body, type=VolumeHead)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"not a volume's head: {error}") from None
    if len(envelope.signatures) != 1 or head.version < 1 or len(head.image) != 64:
        raise EnvelopeError("a volume's head has one signature, a version, and an image")
    return head, envelope.signatures[0].peer


def head_digest(envelope: bytes) -> str:
    """As the next head names it."""
    return blake3(envelope).hexdigest()
