import pytest
from msgspec.structs import replace

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import PROTOCOL, FunctionSpec, function_id
from potluck.wire.common import Limit
from potluck.wire.lease import LeaseRequest
from potluck_ledger.keys import PrivateKey
from potluck_node.lease_secrets import opened, sealed_for

OURS, THEIRS = PrivateKey(bytes(32)), PrivateKey(bytes(range(32)))
SPEC = FunctionSpec("app", "f", "ab" * 32, "3.11", module="m", qualname="f", secrets=(("TOKEN", "hunter2"),))


def request(spec=SPEC, lease="lease-1"):
    function, sealed = sealed_for(OURS.peer, lease, spec)
    return LeaseRequest(PROTOCOL, lease, function, 1, 0, "", sealed)


def test_only_the_provider_opens_them_and_for_this_lease_alone():
    sent = request()
    assert b"hunter2" not in wire.encode(sent)
    assert opened(sent, OURS).function == SPEC
    for other, key in ((sent, THEIRS), (replace(sent, lease="lease-2"), OURS)):
        with pytest.raises(RemoteProtocolError, match="cannot be opened"):
            opened(other, key)


def test_what_has_none_is_left_as_it_is_and_open_ones_are_refused():
    plain = request(replace(SPEC, secrets=()))
    assert not plain.sealed
    assert opened(plain, OURS) is plain
    with pytest.raises(RemoteProtocolError, match="not sealed"):
        opened(replace(plain, function=SPEC), OURS)


def test_what_the_caller_may_use_is_told_to_nobody():
    limited = replace(SPEC, limit=Limit("ours", 5))
    assert opened(request(limited), OURS).function == SPEC
    assert function_id(limited) == function_id(SPEC)
