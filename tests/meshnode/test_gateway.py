"""The gateway over real sockets, with deadlines that are short; instead of the mesh, a caller that obeys."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.meshnode.core.worlds import spec

from potluck import wire
from potluck.errors import InvalidError
from potluck.wire import Failure, web
from potluck.wire.common import Web
from potluck_node import gateway as module
from potluck_node import gateway_connection, web_visit
from potluck_node.core import events as ev
from potluck_node.core import web as core
from potluck_node.gateway import Gateway

SITE = spec(app="app", name="site", web=Web("asgi", "site"))


@dataclass
class Binding:
    gateway: str = "127.0.0.1:0"
    gateway_hosts: tuple[str, ...] = ()
    gateway_cert: str = ""
    gateway_key: str = ""
    gateways: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Mesh:
    """Stands for the caller: `answer` is what happens to each request, told its sink and call."""

    answer: Callable[[Any, str], None] = lambda sink, call: None
    events: list[Any] = field(default_factory=list)
    sinks: dict[str, Any] = field(default_factory=dict)

    def open(self, call: str, function: wire.FunctionSpec, sink: Any) -> None:
        self.sinks[call] = sink

    def submit(self, event: Any) -> None:
        self.events.append(event)
        if isinstance(event, ev.InputsEnded):
            self.answer(self.sinks[event.call], event.call)

    def endpoint(self, app: str, label: str) -> wire.FunctionSpec | None:
        return SITE if (app, label) == ("app", "site") else None

    def cancelled(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, ev.CallCancelled)]


@asynccontextmanager
async def serving(mesh: Mesh, **settings: Any):
    gateway = Gateway(Binding(**settings), "127.0.0.1:8317", mesh, lambda key, secret: False)
    gateway.endpoints = mesh
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve)
        url = await gateway.base()
        yield gateway, int(url.rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def said(stream: trio.SocketStream) -> bytes:
    """All until the gateway closes."""
    data = b""
    with trio.fail_after(20):
        async for piece in stream:
            data += piece
    return data


async def until(condition: Callable[[], object]) -> None:
    """The client may hear the end of an answer before the gateway is done with it."""
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)


def request(method: str = "GET", extra: str = "", path: str = "/app/site") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{extra}\r\n".encode()


async def ask(port: int, data: bytes) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(data)
        return await said(stream)


def succeed(sink: Any, call: str) -> None:
    sink.began(ev.Began(call, 0, "w"))
    payload = wire.encode(web.ResponseHead(200, ((b"content-length", b"2"),), b"ok"))
    sink.deliver(ev.Deliver(call, 0, payload=payload))


async def test_a_short_answer_is_the_outcome_alone():
    async with serving(Mesh(succeed)) as (gateway, port):
        answer = await ask(port, request())
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\nok")
        await until(lambda: not gateway.busy)


async def test_a_connection_that_never_asks_is_closed(monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.2)
    async with serving(Mesh(succeed)) as (_, port):
        assert await ask(port, b"") == b""
        assert b"HTTP/1.1 408" in await ask(port, b"GET /app/site HT")


async def test_nor_does_a_trickle_or_the_time_after_an_answer_keep_it_open(monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.3)
    async with serving(Mesh(succeed)) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(request().replace(b"Connection: close\r\n", b""))
            answer = await said(stream)
            assert b"HTTP/1.1 200" in answer
            assert answer.endswith(b"ok")
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(20), pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            while True:
                await stream.send_all(b"G")
                await trio.sleep(0.05)
        await stream.aclose()


async def test_a_request_in_work_is_not_idle(monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.2)
    mesh = Mesh(lambda sink, call: sink.began(ev.Began(call, 0, "w")))
    async with serving(mesh) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request())
        await until(lambda: mesh.sinks)
        await trio.sleep(0.5)
        succeed(mesh.sinks["web.1"], "web.1")
        assert b"HTTP/1.1 200" in await said(stream)


async def test_connections_have_a_limit(monkeypatch):
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 2)
    async with serving(Mesh(succeed)) as (_, port):
        held = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in held:
            await stream.send_all(request("GET")[:-2])
        assert await ask(port, request()) == b""
        for stream in held:
            await stream.send_all(b"\r\n")
            assert b"200" in await said(stream)


async def test_a_body_that_does_not_come_ends_its_request(monkeypatch):
    monkeypatch.setattr(web_visit, "PART_TIMEOUT_S", 0.2)
    mesh = Mesh(lambda sink, call: sink.began(ev.Began(call, 0, "w")))
    async with serving(mesh) as (_, port):
        assert b"HTTP/1.1 408" in await ask(port, request("POST", "Content-Length: 5\r\n"))
        assert not mesh.events
        assert b"HTTP/1.1 408" in await ask(port, request("POST", "Transfer-Encoding: chunked\r\n"))
        await until(lambda: len(mesh.cancelled()) == 1)


async def test_nobody_waits_for_a_machine_for_ever(monkeypatch):
    monkeypatch.setattr(web_visit, "BEGIN_TIMEOUT_S", 0.2)
    mesh = Mesh()
    async with serving(mesh) as (_, port):
        answer = await ask(port, request())
        assert b"HTTP/1.1 503" in answer
        assert b"retry-after: 10" in answer
        await until(lambda: len(mesh.cancelled()) == 1)


async def test_too_many_are_told_when_to_come_again(monkeypatch):
    monkeypatch.setattr(core, "FUNCTION_REQUESTS_MAX", 0)
    async with serving(Mesh(succeed)) as (_, port):
        answer = await ask(port, request())
        assert b"HTTP/1.1 429" in answer
        assert b"retry-after: 1" in answer


def flood(sink: Any, call: str) -> None:
    """A worker that heeds no window."""
    sink.began(ev.Began(call, 0, "w"))
    sink.item(ev.DeliverItem(call, 0, 0, wire.encode(web.ResponseHead(200, (), b"", True))))
    for number in range(1, 100):
        sink.item(ev.DeliverItem(call, 0, number, wire.encode(web.BodyPiece(bytes(60_000), True))))


async def test_what_waits_for_a_client_is_bounded_whatever_the_worker_sends():
    mesh = Mesh(flood)
    async with serving(mesh) as (_, port):
        answer = await ask(port, request())
        assert len(answer) < web_visit.HELD_BYTES_MAX + 100_000
        assert not answer.endswith(b"0\r\n\r\n")
        await until(lambda: len(mesh.cancelled()) == 1)


def fill(sink: Any, call: str) -> None:
    sink.began(ev.Began(call, 0, "w"))
    sink.item(ev.DeliverItem(call, 0, 0, wire.encode(web.ResponseHead(200, (), b"", True))))
    for number in range(1, 18):
        sink.item(ev.DeliverItem(call, 0, number, wire.encode(web.BodyPiece(bytes(60_000), True))))


async def fed(mesh: Mesh, done: Callable[[], object]) -> None:
    """Answer more and more, as far as it is taken: the kernel holds a lot for a client that does not read."""
    await until(lambda: mesh.sinks)
    sink, number = mesh.sinks["web.1"], 18

    def feed() -> object:
        nonlocal number
        if sink._held < 500_000:
            sink.item(ev.DeliverItem(sink.call, 0, number, wire.encode(web.BodyPiece(bytes(60_000), True))))
            number += 1
        return done()

    await until(feed)


async def test_a_client_that_does_not_read_is_left(monkeypatch):
    monkeypatch.setattr(gateway_connection, "WRITE_TIMEOUT_S", 0.2)
    mesh = Mesh(fill)
    async with serving(mesh) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request())
        await fed(mesh, mesh.cancelled)


async def test_the_gateway_ends_though_a_client_does_not_read():
    mesh = Mesh(fill)
    with trio.fail_after(20):
        async with serving(mesh) as (gateway, port):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(request())
            held: list[int] = []

            def stuck() -> bool:
                held.append(mesh.sinks["web.1"]._held)
                return len(set(held[-30:])) == 1 < len(held[-30:])

            await fed(mesh, stuck)
            assert any(each._unsent for each in gateway._connections)
    await stream.aclose()


async def test_an_app_that_is_stopped_takes_its_requests_along():
    mesh = Mesh(lambda sink, call: sink.began(ev.Began(call, 0, "w")))
    async with serving(mesh) as (gateway, port), trio.open_nursery() as nursery:
        answers: list[bytes] = []

        async def one() -> None:
            answers.append(await ask(port, request()))

        nursery.start_soon(one)
        await until(gateway.open_apps)
        assert gateway.cancel_app("other", Failure("cancelled", "x")) == 0
        assert not gateway.cancel_call("other", Failure("cancelled", "x"))
        assert gateway.cancel_app("app", Failure("cancelled", "x")) == 1
        await until(lambda: answers)
        assert b"HTTP/1.1 503" in answers[0]


async def test_where_it_cannot_listen_is_said():
    async with serving(Mesh(succeed)) as (_, port):
        taken = Gateway(Binding(f"127.0.0.1:{port}"), "127.0.0.1:1", Mesh(), lambda key, secret: False)
        other = Gateway(Binding(f"127.0.0.1:{port}"), f"127.0.0.1:{port}", Mesh(), lambda key, secret: False)
        off = Gateway(Binding("none"), "", Mesh(), lambda key, secret: False)
        async with trio.open_nursery() as nursery:
            for each in (taken, other, off):
                await nursery.start(each.serve)
            with pytest.raises(InvalidError, match="cannot listen"):
                await taken.base()
            assert (await other.base()).startswith("http://127.0.0.1:")
            assert await off.base() == ""
            nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    """Files with a certificate for localhost, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_with_a_certificate_it_speaks_tls(certificate):
    cert, key = certificate
    async with serving(Mesh(succeed), gateway_cert=cert, gateway_key=key) as (gateway, port):
        assert (await gateway.base()).startswith("https://")
        trusting = ssl.create_default_context(cafile=cert)
        async with httpx.AsyncClient(verify=trusting, timeout=20) as client:
            for _ in range(3):
                answer = await client.get(f"https://localhost:{port}/app/site")
                assert (answer.status_code, answer.text) == (200, "ok")
                assert answer.http_version == "HTTP/1.1"
        assert b"200" not in await ask(port, request())


@pytest.mark.parametrize("cert", ["/nowhere.pem", __file__, ""])
async def test_a_certificate_that_is_none_is_named(cert):
    settings = Binding(gateway_cert=cert, gateway_key=__file__)
    wrong = Gateway(settings, "", Mesh(), lambda key, secret: False)
    async with trio.open_nursery() as nursery:
        await nursery.start(wrong.serve)
        with pytest.raises(InvalidError, match="certificate"):
            await wrong.base()
        nursery.cancel_scope.cancel()
