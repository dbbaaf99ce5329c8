"""The proxy by itself, spoken to over its socket as hostile code would."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from tests.meshnode.sandbox import web

from potluck.runner import forward
from potluck_node.sandbox import network, network_http
from potluck_node.sandbox.network import Gateway
from potluck_node.sandbox.network_policy import Policy, Refused

PATIENCE_S = 20.0


@asynccontextmanager
async def open_gateway(gateway: Gateway) -> AsyncIterator[Path]:
    """Its socket."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            folder = await nursery.start(gateway.serve)
            yield folder / network.SOCKET
            nursery.cancel_scope.cancel()


async def dial(path: Path) -> trio.SocketStream:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.connect(str(path))
    return trio.SocketStream(sock)


async def rest_of(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def say(path: Path, text: str) -> str:
    """Send `text`; returns all that comes back."""
    async with await dial(path) as stream:
        await stream.send_all(text.encode())
        return (await rest_of(stream)).decode()


async def head_of(stream: trio.SocketStream) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        more = bytes(await stream.receive_some())
        assert more, data
        data += more
    return data.decode()


def test_runner_and_node_agree_on_the_place() -> None:
    assert f"{network.PLACE}/{network.SOCKET}" == forward.SOCKET


async def test_plain_requests_are_passed_on_one_for_each_connection() -> None:
    with web.site() as port:
        async with open_gateway(web.gateway(port)) as path:
            head = "Proxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
            start = f"POST http://FILES.example.org:{port}/a?b=1#c HTTP/1.1\r\nHost: lies.org\r\n{head}"
            answer = await say(path, f"{start}Content-Length: 5\r\n\r\nhello")
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.lower().count("connection: close") == 1
    assert answer.endswith(f"POST /a?b=1 host=files.example.org:{port} connection=closehello")


async def test_tunnels_carry_anything_both_ways_and_end_when_both_have_ended() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def shout(stream: trio.SocketStream) -> None:
        await stream.send_all(b"first\n" + (await rest_of(stream)).upper())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, shout, listeners))
        async with open_gateway(web.gateway(port)) as path, await dial(path) as stream:
            connect = f"CONNECT files.example.org:{port} HTTP/1.1\r\nHost: files.example.org\r\n\r\nearly "
            await stream.send_all(connect.encode())
            assert (await head_of(stream)).startswith("HTTP/1.1 200 Connected\r\n")
            await stream.send_all(b"late" * 100_000)
            await stream.send_eof()
            assert await rest_of(stream) == b"first\nEARLY " + b"LATE" * 100_000
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("rebound.example.org", "rebound.example.org, which is at 8.8.8.8,"),
        ("lan.example.org", "lan.example.org, which is at 192.168.1.1, cannot be reached: the address is private"),
        ("cloud.example.org", "which is at 169.254.169.254"),
        ("mapped.example.org", "which is at ::ffff:127.0.0.1"),
        ("127.0.0.1", "is not among what the machine's owner allows: *.org, *.com"),
        ("other.net", "is not among what the machine's owner allows"),
        ("0x7f.1", "reads like"),
        ("localhost", "no full name"),
    ],
)
async def test_what_is_forbidden_is_refused_with_a_reason_that_is_told_once(host: str, words: str) -> None:
    told: list[str] = []
    own = (ipaddress.ip_network("8.8.8.0/24"),)
    with web.site() as port:
        policy = Policy(("*",), ("*.org", "*.com"), (("127.0.0.1", port),))
        async with open_gateway(Gateway(policy, told.append, web.resolve, lambda: own)) as path:
            closed = port - 1 if host in web.ADDRESSES else port
            for _ in range(2):
                tunnel = await say(path, f"CONNECT {host}:{closed} HTTP/1.1\r\nHost: a\r\n\r\n")
                plain = await say(path, f"GET http://{host}:{closed}/ HTTP/1.1\r\nHost: a\r\n\r\n")
    for answer in (tunnel, plain):
        assert answer.startswith("HTTP/1.1 403 ")
        assert words in answer.split("\r\n")[0]
        assert words in answer.split("\r\n\r\n")[1]
    (reason,) = told
    assert words in reason


async def test_a_name_is_resolved_once_and_that_answer_is_connected_to() -> None:
    """A server of names that answers differently the second time gains nothing."""
    answers = iter([("127.0.0.1",), ("192.168.1.1",)])

    async def resolve(_: object) -> Any:
        return next(answers)

    with web.site() as port:
        policy = Policy(("*",), ("*",), (("127.0.0.1", port),))
        async with open_gateway(Gateway(policy, resolve=resolve)) as path:
            assert "200 OK" in await say(path, f"GET http://a.org:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert "192.168.1.1" in await say(path, f"GET http://a.org:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\0\1\2\3garbage\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET https://a.org/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a.org/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u:p@a.org/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a.org HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a.org:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("POST http://a.org/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (f"GET http://a.org/ HTTP/1.1\r\nHost: a\r\nX: {'x' * (network_http.HEAD_BYTES_MAX + 1000)}", 400),
        ("x" * (network_http.HEAD_BYTES_MAX + 1000), 400),
        ("GET http://missing.org/ HTTP/1.1\r\nHost: a\r\n\r\n", 502),
        ("GET http://files.example.org:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n", 502),
    ],
)
async def test_nonsense_and_failures_are_answered_and_the_next_one_is_served(text: str, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    async with open_gateway(web.gateway(closed)) as path:
        answer = await say(path, text.replace("{port}", str(closed)))
        assert answer.startswith(f"HTTP/1.1 {status} "), answer
        assert "403" in await say(path, "GET http://lan.example.org/ HTTP/1.1\r\nHost: a\r\n\r\n")


async def test_a_server_that_breaks_off_or_talks_nonsense_is_a_502() -> None:
    async with serving(b"", b"SSH-2.0-nonsense\r\n\r\n") as port, open_gateway(web.gateway(port)) as path:
        for _ in range(2):
            answer = await say(path, f"GET http://files.example.org:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.startswith("HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdefghi",
    ],
)
async def test_answers_of_all_forms_arrive_whole_and_end(words: bytes) -> None:
    async with serving(words) as port, open_gateway(web.gateway(port)) as path:
        answer = await say(path, f"GET http://files.example.org:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n")
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer.encode())
    client.receive_data(b"")
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        body += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert body == b"abc"


@asynccontextmanager
async def serving(*words: bytes) -> AsyncIterator[int]:
    """The port of a server that says these, one to each client, whatever it is asked, and hangs up."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    left = iter(words)

    async def speak(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(next(left))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, speak, listeners))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_half_a_request_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_http, "HEAD_TIMEOUT_S", 0.2)
    async with open_gateway(web.gateway(1)) as path:
        assert (await say(path, "GET http://a.org/ HT")).startswith("HTTP/1.1 408 ")


async def test_an_idle_tunnel_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "IDLE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with open_gateway(web.gateway(port)) as path:
            answer = await say(path, f"CONNECT files.example.org:{port} HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer == "HTTP/1.1 200 Connected\r\n\r\n"


async def test_connections_at_once_are_bounded_and_come_free_again() -> None:
    statuses: list[str] = []
    streams: list[trio.SocketStream] = []

    async def one(path: Path, connect: str) -> None:
        stream = await dial(path)
        streams.append(stream)
        await stream.send_all(connect.encode())
        statuses.append((await head_of(stream)).split(" ")[1])

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=256)
    port = listeners[0].socket.getsockname()[1]
    connect = f"CONNECT files.example.org:{port} HTTP/1.1\r\nHost: a\r\n\r\n"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, rest_of, listeners))
        async with open_gateway(web.gateway(port)) as path:
            async with trio.open_nursery() as clients:
                for _ in range(200):
                    clients.start_soon(one, path, connect)
            for stream in streams:
                await stream.aclose()
            while (await try_once(path, connect)).startswith("503"):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert statuses.count("200") == network.CONNECTIONS_MAX
    assert statuses.count("503") == 200 - network.CONNECTIONS_MAX


async def try_once(path: Path, connect: str) -> str:
    async with await dial(path) as stream:
        await stream.send_all(connect.encode())
        return (await head_of(stream)).partition(" ")[2]


async def test_silent_clients_hold_a_bounded_number_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "CLIENTS_MAX", 4)
    monkeypatch.setattr(network_http, "HEAD_TIMEOUT_S", 0.2)
    with web.site() as port:
        async with open_gateway(web.gateway(port)) as path:
            before = len(os.listdir("/proc/self/fd"))
            silent = [await dial(path) for _ in range(12)]
            await trio.testing.wait_all_tasks_blocked()
            assert len(os.listdir("/proc/self/fd")) == before + len(silent) + network.CLIENTS_MAX
            assert "200 OK" in await say(path, f"GET http://files.example.org:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n")
            for stream in silent:
                await stream.aclose()


async def test_a_sandbox_that_has_moved_its_share_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "BYTES_MAX", 1000)
    told: list[str] = []
    with web.site() as port:
        async with open_gateway(web.gateway(port, told.append)) as path:
            text = f"GET http://files.example.org:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n"
            answers = [await say(path, text) for _ in range(10)]
    assert "200 OK" in answers[0]
    assert answers[-1].startswith("HTTP/1.1 403 This sandbox has moved")
    assert len(told) == 1


async def test_the_rate_is_bounded(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    monkeypatch.setattr(network, "BYTES_PER_S", 1000)
    bucket = network.TokenBucket(network.BYTES_PER_S)
    start = trio.current_time()
    for _ in range(10):
        await network._pay(bucket, 1000)
    assert 8.0 < trio.current_time() - start < 10.0


async def test_nothing_is_left_when_it_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with open_gateway(web.gateway(port)) as path:
            assert path.parent.parent.stat().st_mode & 0o777 == 0o700
            stream = await dial(path)
            await stream.send_all(f"CONNECT files.example.org:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await head_of(stream)
            server, _ = listener.accept()
        assert await rest_of(stream) == b""
        assert server.recv(10) == b""
        server.close()
    assert not path.parent.parent.exists()


async def test_a_name_that_does_not_exist_is_looked_up_by_the_machines_resolver() -> None:
    async with open_gateway(Gateway(Policy(("*",), ("*",)))) as path:
        answer = await say(path, "GET http://no-such-name.invalid/ HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith("HTTP/1.1 502 no-such-name.invalid could not be looked up")


_HEADS = st.sampled_from(
    [b"", b"GET http://a.org/ HTTP/1.1\r\nHost: a\r\n", b"CONNECT a.org:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http://"]
)


@given(_HEADS, st.binary(max_size=200))
async def test_bytes_of_any_kind_are_answered_in_http_or_not_at_all(head: bytes, rest: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(head + rest)
    await ours.send_eof()

    async def connect(_: object) -> Any:
        raise Refused(403, "no")

    async def passed(_: int) -> None:
        pass

    stream: Any = theirs
    await network_http.serve_client(stream, connect, passed, lambda _: None)
    await theirs.aclose()
    answer = await rest_of(ours)  # type: ignore[arg-type]
    assert not answer or answer.startswith(b"HTTP/1.1 40")
