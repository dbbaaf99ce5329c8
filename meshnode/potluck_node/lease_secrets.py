"""Secrets on their way to one provider, for one lease."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import FunctionSpec
from potluck.wire.lease import LeaseRequest, secret_context
from potluck_ledger.keys import PrivateKey, PublicKey
from potluck_ledger.sealing import SealError, seal, unseal

_Pairs = tuple[tuple[str, str], ...]


def sealed_for(peer: str, lease: str, function: FunctionSpec) -> tuple[FunctionSpec, bytes]:
    """The function without its secrets and its limit, which is ours to keep; and the secrets for the peer alone."""
    function = replace(function, limit=None) if function.limit else function
    if not function.secrets:
        return function, b""
    pairs = msgspec.msgpack.encode(function.secrets)
    return replace(function, secrets=()), seal(PublicKey.of_peer(peer), pairs, secret_context(lease))


def opened(request: LeaseRequest, key: PrivateKey) -> LeaseRequest:
    """The request with the secrets in its function. Raises `RemoteProtocolError` when they are not for us, or came
    open."""
    if request.function.secrets:
        raise RemoteProtocolError("The caller sent secrets that are not sealed.", fix="Upgrade Potluck there.")
    if not request.sealed:
        return request
    try:
        pairs = unseal(key, request.sealed, secret_context(request.lease))
    except SealError as error:
        raise RemoteProtocolError("The secrets of a lease cannot be opened.", why=str(error)) from None
    return replace(request, function=replace(request.function, secrets=wire.decode(pairs, _Pairs)), sealed=b"")
