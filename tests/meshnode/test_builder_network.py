"""The network of build steps: the world, but not this machine's own services."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import pytest
from tests.image_store.test_commands import BASE, Place

from potluck_images.build import build
from potluck_images.definition import ImageDefinition, Run
from potluck_images.errors import ImageBuildError
from potluck_node import builder_network
from potluck_node.builder import BwrapWorkshop
from potluck_node.builder_network import StepNetwork

CONNECTS = """
import socket
for host in ('127.0.0.1', {own!r}):
    try:
        socket.create_connection((host, {port}), 3)
    except OSError as error:
        print('no', error)
    else:
        raise SystemExit('reached ' + host)
assert len(open('/proc/net/route').readlines()) > 1, 'no network'
"""


def pasta_works() -> bool:
    return not StepNetwork(BwrapWorkshop()._drop, True)._why_not()


needs_pasta = pytest.mark.skipif(not pasta_works(), reason="pasta does not work here")


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    made.workshop = BwrapWorkshop(for_others=True)
    yield made
    made.store.close()


def own_address() -> str:
    """Packets to it never leave this machine; 192.0.2.1 is nobody (RFC 5737), and nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


@needs_pasta
def test_a_step_cannot_reach_what_listens_on_this_machine(place):
    with socket.create_server(("0.0.0.0", 0)) as server:
        code = CONNECTS.format(own=own_address(), port=server.getsockname()[1])
        place.build(Run((code,)))
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


@needs_pasta
def test_how_a_step_ends_is_told_through_pasta(place):
    with pytest.raises(ImageBuildError, match="status 7"):
        place.build(Run(("raise SystemExit(7)",)))


@needs_pasta
def test_a_cancelled_step_leaves_no_process(place):
    def progress(stage, text):
        if text == "started":
            raise KeyboardInterrupt

    mark = f"potluck-test-{time.monotonic_ns()}"
    definition = ImageDefinition(
        (*BASE, Run((f"import time; print('started', flush=True); time.sleep(600)  # {mark}",)))
    )
    with pytest.raises(KeyboardInterrupt):
        build(definition, place.store, place.cache, progress, place.workshop)
    deadline = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", mark], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_pasta_only_own_steps_run(place, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "pasta" else f"/usr/bin/{name}")
    assert StepNetwork((), for_others=False).before() == ([], [])
    with pytest.raises(ImageBuildError, match="own services") as caught:
        StepNetwork((), for_others=True).before()
    assert "sudo apt install passt" in caught.value.fix


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:3128", "http://localhost:1", "http://user:x@[::1]:80"])
def test_a_proxy_on_the_loopback_keeps_own_steps_in_this_machines_network(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy)
    assert StepNetwork((), for_others=False).before() == ([], [])
    with pytest.raises(ImageBuildError) as caught:
        StepNetwork((), for_others=True).before()
    assert "http_proxy" in caught.value.why


def test_a_name_server_on_the_loopback_counts_as_none(tmp_path, monkeypatch):
    local, real = tmp_path / "local", tmp_path / "real"
    local.write_text("# stub\nnameserver 127.0.0.53\noptions edns0\n")
    real.write_text("nameserver 127.0.0.1\nnameserver 192.0.2.7\n")
    monkeypatch.setattr(builder_network, "_RESOLVERS", (local, real))
    network = StepNetwork((), for_others=True)
    assert network.resolver() == real
    monkeypatch.setattr(builder_network, "_RESOLVERS", (local, tmp_path / "none"))
    with pytest.raises(ImageBuildError) as caught:
        network.before()
    assert "name server" in caught.value.why
