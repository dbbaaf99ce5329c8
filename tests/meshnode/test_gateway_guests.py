"""What the gateways of other nodes send: who is let in, and what is refused whoever sends it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from tests.meshnode.test_gateway import SITE, Binding, Mesh, succeed

from potluck import wire
from potluck.wire import Failure, visits, web
from potluck_node.clock import SystemClock
from potluck_node.core import events as ev
from potluck_node.gateway import Gateway
from potluck_node.gateway_guests import Guests
from potluck_node.link import StreamLink
from potluck_node.transport.memory import stream_pair
from potluck_node.web_visit import HELD_BYTES_MAX

ASK = web.HttpRequest("GET", "http", "1.1", "/app/site", "/app/site/", b"/app/site/", b"", ((b"host", b"x"),))


@asynccontextmanager
async def visiting(mesh: Mesh, named: bool = True):
    """An owner's gateway that names the peer, or does not; yields it, what to send by, and what came."""
    ours, theirs = stream_pair("owner", "other")
    gateway = Gateway(Binding(gateways={"app": ("other",)} if named else {}), "", mesh, lambda key, secret: False)
    gateway.endpoints = mesh
    guests = Guests(gateway, mesh, SystemClock(), lambda: gateway.heard)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guests.on_stream, ours)
        sending, came = trio.open_memory_channel[Any](100)
        link = StreamLink(theirs, visits.FromOwner, sending.send_nowait, SystemClock())

        async def run() -> None:
            sending.send_nowait(await link.run())

        nursery.start_soon(run)
        with trio.fail_after(20):
            yield gateway, link, came
        nursery.cancel_scope.cancel()


def begun(request: wire.Message = ASK, number: int = 1) -> visits.VisitBegun:
    return visits.VisitBegun(number, wire.encode(request))


async def test_a_gateway_that_is_named_gets_its_answer():
    async with visiting(Mesh(succeed)) as (gateway, link, came):
        link.post(begun())
        assert await came.receive() == visits.VisitStarted(1)
        ended = await came.receive()
        assert wire.decode(ended.payload, web.ResponseHead).body == b"ok"
        assert not gateway.busy


@pytest.mark.parametrize(
    ("named", "request_", "status"),
    [
        (False, ASK, 403),
        (True, replace(ASK, root="/app/none", path="/app/none"), 404),
        (True, replace(ASK, root="/other/site", path="/other/site"), 403),
        (True, replace(ASK, path="/elsewhere"), 400),
        (True, replace(ASK, headers=((b"x", b"a\r\nb: c"),)), 400),
        (True, replace(ASK, method="GET / HTTP/1.1\r\n"), 400),
        (True, replace(ASK, query=b"a b"), 400),
    ],
)
async def test_what_is_refused_begins_nothing(named, request_, status):
    mesh = Mesh(succeed)
    async with visiting(mesh, named) as (gateway, link, came):
        link.post(begun(request_))
        assert (await came.receive()).status == status
        assert not mesh.events
        assert not gateway.busy


async def test_what_breaks_the_protocol_ends_the_stream_and_its_requests():
    mesh = Mesh()
    async with visiting(mesh) as (gateway, link, came):
        link.post(begun())
        link.post(begun(number=1))
        assert isinstance(await came.receive(), str)
        assert not gateway.busy
        assert mesh.cancelled() == ["the client left"]


async def test_more_of_a_body_than_was_asked_for_ends_the_stream():
    mesh = Mesh()
    async with visiting(mesh) as (gateway, link, came):
        link.post(begun())
        link.post(visits.VisitPiece(1, bytes(HELD_BYTES_MAX + 1)))
        assert isinstance(await came.receive(), str)
        assert not any(isinstance(event, ev.PieceAdded) for event in mesh.events)
        assert not gateway.busy


async def test_an_app_that_is_stopped_ends_its_guests():
    async with visiting(Mesh(lambda sink, call: sink.began(ev.Began(call, 0, "w")))) as (gateway, link, came):
        link.post(begun())
        assert await came.receive() == visits.VisitStarted(1)
        assert gateway.cancel_app(SITE.app, Failure("cancelled", "stopped")) == 1
        assert (await came.receive()).status == 503
        assert not gateway.busy
