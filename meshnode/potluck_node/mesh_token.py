"""The one line by which a node joins a mesh: which one, what locks its connections, where to ask, and a key."""

from __future__ import annotations

import base64
import binascii

import msgspec

from potluck.errors import InvalidError
from potluck_ledger.keys import KEY_BYTES
from potluck_ledger.membership import Chain
from potluck_node.mesh_folder import PSK_BYTES

_PREFIX = "potluck1-"
# Longer ones are not read.
TOKEN_CHARS_MAX = 8192


class Token(msgspec.Struct, frozen=True, array_like=True):
    """`seed` is the private key of the invitation; `addresses` are those of whoever invited, the nearest last."""

    name: str
    mesh: str
    psk: bytes
    addresses: tuple[str, ...]
    invitation: bytes
    chain: Chain
    seed: bytes


def write(token: Token) -> str:
    return _PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(token)).decode().rstrip("=")


def read(text: str) -> Token:
    """Raises `InvalidError`."""
    body = text.strip().removeprefix(_PREFIX)
    if not text.strip().startswith(_PREFIX) or len(text) > TOKEN_CHARS_MAX:
        raise InvalidError("This is no token of a mesh.", fix=f"They begin with {_PREFIX} and are one line.")
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        token = msgspec.msgpack.decode(data, type=Token)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise InvalidError(
            "The token is damaged.", why=str(error), fix="Copy all of it, from its first letter."
        ) from None
    if len(token.psk) != PSK_BYTES or len(token.seed) != KEY_BYTES or not token.addresses:
        raise InvalidError("The token is damaged.", fix="Ask for another: potluck mesh invite")
    return token
