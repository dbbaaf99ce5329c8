"""The network as a function sees it: real sandboxes of both tiers, and a web server on the host's loopback."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import trio
from tests.conformance import check_sandbox as suite
from tests.meshnode.sandbox import web, worlds

from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.gvisor import GvisorLauncher
from potluck_node.sandbox.network import CONNECTIONS_MAX, Gateway

cloudpickle.register_pickle_by_value(sys.modules[__name__])

STRICT = pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")


@pytest.fixture(scope="module", params=[BwrapLauncher, pytest.param(GvisorLauncher, marks=STRICT)])
def launcher(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def opener(launcher: Any, tmp_path: Path) -> suite.Opener:
    return worlds.opener_of(launcher, tmp_path)


@asynccontextmanager
async def worker_with(opener: suite.Opener, gateway: Gateway, **fields: Any) -> AsyncIterator[Any]:
    async with trio.open_nursery() as nursery:
        folder = await nursery.start(gateway.serve)
        async with suite.one_worker(opener, network=folder, **fields) as (_, worker):
            yield worker
        nursery.cancel_scope.cancel()


def inside_fetch(*urls: str) -> list[str]:
    """What each gives, or why it does not, through the proxy that the environment names."""
    import urllib.error
    import urllib.request

    said = []
    for url in urls:
        try:
            said.append(urllib.request.urlopen(url, timeout=20).read().decode())
        except urllib.error.HTTPError as error:
            said.append(f"{error.code} {error.read().decode()}")
        except OSError as error:
            said.append(str(error))
    return said


def inside_tunnel(port: int) -> bytes:
    """A plain server behind CONNECT: what TLS would be."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
    connection.set_tunnel("files.example.org", port)
    connection.request("GET", "/tunnel")
    return connection.getresponse().read()


def inside_bare(port: int) -> list[str]:
    """Where sockets lead that do not ask the proxy."""
    import os
    import socket

    said = []
    for address in (("127.0.0.1", port), ("8.8.8.8", 53), ("192.168.1.1", 80), ("169.254.169.254", 80)):
        try:
            socket.create_connection(address, 5)
            said.append("connected")
        except OSError as error:
            said.append(type(error).__name__)
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
        try:
            socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).sendto(b"\x08\0\0\0\0\0\0\0", ("8.8.8.8", 0))
            said.append("sent")
        except OSError as error:
            said.append(type(error).__name__)
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    return [*said, f"socket: {os.path.exists('/run/potluck/network')}", f"proxies: {len(names)}"]


def inside_crowd(port: int, many: int) -> dict[str, int]:
    """The answers to so many tunnels that are all held open."""
    import collections
    import resource
    import socket

    resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1:] * 2)
    held = [socket.create_connection(("127.0.0.1", 3128), 30) for _ in range(many)]
    for each in held:
        each.sendall(f"CONNECT files.example.org:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return dict(collections.Counter(each.recv(100).decode().split(" ")[1] for each in held))


def inside_kill_others() -> list[str]:
    import os
    import signal
    import time

    os.kill(-1, signal.SIGKILL)
    for _ in range(200):
        found = inside_fetch("http://files.example.org:1/")
        if "refused" in found[0]:
            break
        time.sleep(0.05)
    return found


def inside_large(port: int) -> int:
    """Bytes that came through, with a body as large on the way up."""
    import urllib.request

    body = b"x" * (8 << 20)
    url = f"http://files.example.org:{port}/"
    answer = urllib.request.urlopen(urllib.request.Request(url, body), timeout=60).read()
    assert answer.endswith(body)
    return len(answer)


async def test_what_is_allowed_comes_through(opener: suite.Opener) -> None:
    with web.site() as port:
        async with worker_with(opener, web.gateway(port, print, "*.example.org")) as worker:
            (said,) = (await suite.call(worker, inside_fetch, f"http://files.example.org:{port}/a")).value
            assert said == f"GET /a host=files.example.org:{port} connection=close"
            assert b"GET /tunnel" in (await suite.call(worker, inside_tunnel, port)).value
            assert (await suite.call(worker, inside_large, port)).value > 8 << 20


async def test_what_is_not_is_refused_with_the_reason(opener: suite.Opener) -> None:
    told: list[str] = []
    with web.site() as port:
        urls = (
            "http://lan.example.org/",
            f"https://rebound.example.org:{port - 1}/",
            "https://cloud.example.org/latest/meta-data",
            "http://192.168.1.1/",
            f"http://files.example.org:{port - 1}/",
            "http://other.com/",
        )
        async with worker_with(opener, web.gateway(port, told.append, "*.example.org")) as worker:
            said = (await suite.call(worker, inside_fetch, *urls)).value
    assert said[0].startswith("403 potluck: lan.example.org, which is at 192.168.1.1, cannot be reached")
    assert "Tunnel connection failed: 403 rebound.example.org, which is at 127.0.0.1," in said[1]
    assert "which is at 169.254.169.254" in said[2]
    assert "192.168.1.1 is not among what the function asked for" in said[3]
    assert "files.example.org, which is at 127.0.0.1, cannot be reached" in said[4]
    assert "other.com is not among what the function asked for: *.example.org." in said[5]
    assert len(told) == len(urls)


async def test_the_network_is_the_proxy_alone(opener: suite.Opener) -> None:
    with web.site() as port:
        async with worker_with(opener, web.gateway(port)) as worker:
            said = (await suite.call(worker, inside_bare, port)).value
    assert said[-2:] == ["socket: True", "proxies: 8"]
    assert not {"connected", "sent"} & set(said)


async def test_without_asking_there_is_nothing(opener: suite.Opener) -> None:
    with web.site() as port:
        async with suite.one_worker(opener) as (_, worker):
            said = (await suite.call(worker, inside_bare, port)).value
    assert said[-2:] == ["socket: False", "proxies: 0"]
    assert not {"connected", "sent"} & set(said)


async def test_connections_at_once_are_bounded(opener: suite.Opener) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        port = listener.getsockname()[1]
        async with worker_with(opener, web.gateway(port)) as worker:
            counts = (await suite.call(worker, inside_crowd, port, 200)).value
    assert counts == {"200": CONNECTIONS_MAX, "503": 200 - CONNECTIONS_MAX}


async def test_whoever_kills_the_forwarder_loses_the_network_and_nothing_else(opener: suite.Opener) -> None:
    with web.site() as port:
        async with worker_with(opener, web.gateway(port)) as worker:
            assert "refused" in (await suite.call(worker, inside_kill_others)).value[0]
            assert (await suite.call(worker, len, "abc")).value == 3


async def test_a_function_may_ask_for_another_proxy(opener: suite.Opener) -> None:
    function = suite.function_spec(env=(("HTTP_PROXY", "http://127.0.0.1:9"), ("http_proxy", "http://127.0.0.1:9")))
    with web.site() as port:
        async with worker_with(opener, web.gateway(port), function=function) as worker:
            (said,) = (await suite.call(worker, inside_fetch, f"http://files.example.org:{port}/")).value
    assert "refused" in said
