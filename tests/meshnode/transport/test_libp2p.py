"""The libp2p transport, with real sockets on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from tests.conformance import check_transport as suite

from potluck_ledger.keys import PrivateKey
from potluck_node.transport.libp2p import Libp2pTransport

pytestmark = pytest.mark.e2e

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def make(bootstrap: tuple[str, ...] = (), listen: tuple[str, ...] = LOOPBACK, **options) -> Libp2pTransport:
    node = Libp2pTransport(PrivateKey.generate(), listen, bootstrap, suite.rank, **options)
    for protocol, handler in suite.HANDLERS.items():
        node.handle(protocol, handler)
    return node


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Libp2pTransport, Libp2pTransport, Libp2pTransport]]:
    a, b, c = nodes = make(), make(), make()
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.serve)
        await a.connect(b.addresses()[0])
        await c.connect(b.addresses()[0])
        await suite.eventually(lambda: {a.peer, c.peer} <= set(b.peers()))
        yield a, b, c
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check):
    with trio.fail_after(60):
        await check(world)
