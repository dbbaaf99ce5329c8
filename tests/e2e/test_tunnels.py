"""Ports in a function's sandbox, reached on the caller's machine."""

import socket

import pytest
from tests.e2e import tunnel_sample as sample
from tests.e2e.mesh import Mesh, wait_until
from tests.e2e.test_state import forget

from potluck import calls, errors


def make_mesh(folder, *flags):
    """A caller, and a peer that runs its functions."""
    made = Mesh(folder)
    caller = made.caller("cas", *flags)
    made.provider("ann")
    wait_until(lambda: caller.status().peers, "finding the provider")
    return made


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    made = make_mesh(tmp_path_factory.mktemp("mesh"), "--trust", "mesh")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def run(trusting, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    forget(sample.where)
    node = use_node(trusting.nodes[0])
    with sample.app.run(show_progress=False):
        yield node
    if calls._connection:
        calls._connection.close()


def talk(address, data):
    with socket.create_connection(address, 60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        back = bytearray()
        while piece := connection.recv(1 << 16):
            back += piece
    return bytes(back)


def test_connections_reach_a_function_on_a_peer_and_all_arrives(run):
    sample.where.clear()
    call = sample.echo.spawn(2)
    wait_until(lambda: "echo" in sample.where, "the tunnel")
    data = bytes(range(256)) * 8000
    assert talk(sample.where["echo"], data) == data[::-1]
    assert talk(sample.where["echo"], b"short") == b"trohs"
    call.get()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(sample.where["echo"], 10)


def test_a_tunnel_ends_with_its_worker(run):
    sample.where.clear()
    call = sample.for_ever.spawn()
    wait_until(lambda: "for ever" in sample.where, "the tunnel")
    # Nothing answers inside: the connection is taken, and ends.
    assert talk(sample.where["for ever"], b"") == b""
    call.cancel()
    wait_until(lambda: not listens(sample.where["for ever"]), "the end of the tunnel")


def listens(address):
    try:
        socket.create_connection(address, 10).close()
    except OSError:
        return False
    return True


def test_a_peer_that_is_not_trusted_opens_no_port_here(tmp_path, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    forget(sample.where)
    made = make_mesh(tmp_path)
    try:
        use_node(made.nodes[0])
        with sample.app.run(show_progress=False), pytest.raises(errors.RefusedError, match="cannot be opened"):
            sample.echo.remote(1)
    finally:
        made.stop()
