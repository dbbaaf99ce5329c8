"""What a connection to the gateway keeps to, byte by byte over a real socket."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from tests.meshnode.test_gateway import Mesh, ask, request, serving, succeed, until

from potluck import wire
from potluck.wire import web
from potluck_node.core import events as ev

KEPT = b"GET /app/site HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def heard(stream: trio.SocketStream, end: bytes, times: int = 1) -> bytes:
    """All until this was there so often."""
    data = b""
    with trio.fail_after(20):
        while data.count(end) < times:
            piece = await stream.receive_some(65536)
            assert piece, data
            data += piece
    return data


async def test_a_connection_goes_on_after_an_answer():
    async with serving(Mesh(succeed)) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for _ in range(3):
            await stream.send_all(KEPT)
            assert b"HTTP/1.1 200" in await heard(stream, b"ok")


async def test_requests_sent_ahead_are_answered_in_order():
    waiting: list[tuple[Any, str]] = []
    mesh = Mesh(lambda sink, call: waiting.append((sink, call)))
    async with serving(mesh) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(KEPT * 2 + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" + KEPT)
        for number in range(3):
            await until(lambda count=number: len(waiting) == count + 1)
            sink, call = waiting[number]
            sink.began(ev.Began(call, 0, "w"))
            sink.deliver(ev.Deliver(call, 0, payload=wire.encode(web.ResponseHead(200, (), b"answer %d" % number))))
        data = await heard(stream, b"answer 2")
    places = [data.index(word) for word in (b"answer 0", b"answer 1", b"404", b"answer 2")]
    assert places == sorted(places)


async def test_a_thousand_refused_ahead_are_all_answered():
    async with serving(Mesh(succeed)) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        await heard(stream, b"HTTP/1.1 404", 1000)


async def test_a_head_alone_has_no_body():
    async with serving(Mesh(succeed)) as (_, port):
        answer = await ask(port, request("HEAD"))
        assert b"content-length: 2" in answer
        assert answer.endswith(b"\r\n\r\n")


async def test_a_body_is_asked_for_where_the_client_waits_for_that():
    async with serving(Mesh(succeed)) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = b"POST /app/site HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        await stream.send_all(head)
        assert await heard(stream, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"body")
        assert b"HTTP/1.1 200" in await heard(stream, b"ok")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET /app/site HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + KEPT,
        b"GET /app/site HTTP/1.1\nHost: localhost\n\n",
    ],
)
async def test_what_is_no_request_is_answered_with_400_and_the_end(data):
    mesh = Mesh(succeed)
    async with serving(mesh) as (_, port):
        answer = await ask(port, data)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in answer
        assert answer.count(b"content-length") == 1
        assert not mesh.events


async def test_a_client_that_leaves_ends_a_request_for_which_no_task_waits():
    mesh = Mesh(lambda sink, call: sink.began(ev.Began(call, 0, "w")))
    async with serving(mesh) as (gateway, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(KEPT)
        await until(lambda: mesh.sinks)
        await stream.aclose()
        await until(lambda: mesh.cancelled() == ["the client left"])
        assert not gateway.busy


async def test_an_answer_that_begins_as_a_stream_is_passed_on_as_it_comes():
    mesh = Mesh(lambda sink, call: sink.began(ev.Began(call, 0, "w")))
    async with serving(mesh) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(KEPT)
        await until(lambda: mesh.sinks)
        sink = mesh.sinks["web.1"]
        sink.item(ev.DeliverItem("web.1", 0, 0, wire.encode(web.ResponseHead(200, (), b"one", True))))
        assert b"transfer-encoding: chunked" in await heard(stream, b"one\r\n")
        sink.item(ev.DeliverItem("web.1", 0, 1, wire.encode(web.BodyPiece(b"two", False))))
        sink.deliver(ev.Deliver("web.1", 0, payload=b""))
        assert (await heard(stream, b"0\r\n\r\n")).startswith(b"3\r\ntwo")
        await stream.send_all(KEPT)
        await until(lambda: "web.2" in mesh.sinks)


async def test_a_worker_that_answers_nonsense_is_a_502():
    def lie(sink: Any, call: str) -> None:
        sink.began(ev.Began(call, 0, "w"))
        headers = ((b"x", b"a\r\n\r\nHTTP/1.1 200 OK"),)
        sink.deliver(ev.Deliver(call, 0, payload=wire.encode(web.ResponseHead(200, headers, b"x"))))

    async with serving(Mesh(lie)) as (_, port):
        answer = await ask(port, request())
        assert answer.startswith(b"HTTP/1.1 502")
        assert answer.count(b"HTTP/1.1") == 1
