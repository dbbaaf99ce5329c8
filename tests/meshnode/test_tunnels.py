"""Ports that lead to workers: carried both ways, closed with whoever answers them."""

import socket

import pytest
import trio
import trio.testing

from potluck import errors
from potluck.wire import tunnels as messages
from potluck_node.state.work import Asker
from potluck_node.tunnels import Tunnels

WORKER = Asker("lease 1", "app")


@pytest.fixture
async def tunnels():
    made = Tunnels("127.0.0.1")
    yield made
    made.left(WORKER.name)


async def test_a_connection_is_carried_both_ways(tunnels):
    opened = await tunnels.ask(messages.OpenTunnel(80), WORKER)
    client = await trio.open_tcp_stream(opened.host, opened.port)
    connection = (await tunnels.ask(messages.NextConnection(opened.tunnel), WORKER)).connection
    await client.send_all(b"question")
    assert (await tunnels.ask(messages.Pull(opened.tunnel, connection), WORKER)).data == b"question"
    await client.send_eof()
    assert (await tunnels.ask(messages.Pull(opened.tunnel, connection), WORKER)).data == b""
    await tunnels.ask(messages.Push(opened.tunnel, connection, b"answer"), WORKER)
    await tunnels.ask(messages.Push(opened.tunnel, connection, b""), WORKER)
    assert await client.receive_some() == b"answer"
    assert await client.receive_some() == b""
    await tunnels.ask(messages.HangUp(opened.tunnel, connection), WORKER)
    with pytest.raises(errors.NotFoundError):
        await tunnels.ask(messages.Pull(opened.tunnel, connection), WORKER)


async def test_it_ends_when_nobody_takes_connections_any_more(tunnels):
    opened = await tunnels.ask(messages.OpenTunnel(80), WORKER)
    with trio.move_on_after(0):
        await tunnels.ask(messages.NextConnection(opened.tunnel), WORKER)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((opened.host, opened.port), 10)


async def test_closing_it_ends_what_waits_and_what_is_connected(tunnels):
    opened = await tunnels.ask(messages.OpenTunnel(80), WORKER)
    client = await trio.open_tcp_stream(opened.host, opened.port)
    connection = (await tunnels.ask(messages.NextConnection(opened.tunnel), WORKER)).connection
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_gone, tunnels, messages.NextConnection(opened.tunnel))
        await trio.testing.wait_all_tasks_blocked()
        await tunnels.ask(messages.CloseTunnel(opened.tunnel), WORKER)
    assert await client.receive_some() == b""
    await _gone(tunnels, messages.Push(opened.tunnel, connection, b"late"))


async def _gone(tunnels, request):
    with pytest.raises(errors.NotFoundError):
        await tunnels.ask(request, WORKER)


async def test_each_worker_has_its_own(tunnels):
    opened = await tunnels.ask(messages.OpenTunnel(80), WORKER)
    for request in (messages.NextConnection(opened.tunnel), messages.CloseTunnel(opened.tunnel)):
        with pytest.raises(errors.NotFoundError):
            await tunnels.ask(request, Asker("lease 2", "app"))


async def test_what_may_not_be_opened(tunnels):
    with pytest.raises(errors.RefusedError, match="not trusted"):
        await tunnels.ask(messages.OpenTunnel(80), Asker("lease 2", "app", trusted=False))
    with pytest.raises(errors.InvalidError, match="no port"):
        await tunnels.ask(messages.OpenTunnel(0), WORKER)
    with pytest.raises(errors.RefusedError, match="has no tunnels"):
        await Tunnels("none").ask(messages.OpenTunnel(80), WORKER)
    with pytest.raises(errors.InvalidError, match="no port for a tunnel"):
        await Tunnels("192.0.2.1").ask(messages.OpenTunnel(80), WORKER)
    for _ in range(messages.TUNNELS_MAX):
        await tunnels.ask(messages.OpenTunnel(80), WORKER)
    with pytest.raises(errors.RefusedError, match="are open"):
        await tunnels.ask(messages.OpenTunnel(80), WORKER)
