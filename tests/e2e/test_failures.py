"""Machines, callers and nodes that die, are killed, or are wrong about the time."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from tests.e2e import sample
from tests.e2e.mesh import PATIENCE_S, Mesh, run_cli, wait_until

from potluck import wire
from potluck.errors import NodeStartError, NoPeerError
from potluck.frames import FrameReader, encode_frame
from potluck.wire import control
from potluck_ledger.journal import verify


def trio_mesh(mesh: Mesh):
    caller = mesh.caller()
    providers = [mesh.provider("ann"), mesh.provider("bob")]
    wait_until(lambda: len(caller.status().peers) == 2, "finding both providers")
    return caller, providers


def test_a_provider_killed_in_a_call_loses_and_doubles_nothing(mesh, use_node):
    caller, (ann, bob) = trio_mesh(mesh)
    use_node(caller)
    with sample.app.run(show_progress=False):
        results = sample.slow_square.map(range(24))
        seen = [next(results)]
        wait_until(lambda: any(w.state == "running" for w in bob.status().workers), "bob at work")
        bob.kill()
        seen += list(results)
    assert seen == [x * x for x in range(24)]
    wait_until(lambda: ann.status().entries, "ann's receipt")


def test_a_killed_client_stops_its_work_and_closes_the_receipt(mesh):
    caller = mesh.caller()
    ann = mesh.provider("ann")
    wait_until(lambda: len(caller.status().peers) == 1, "finding ann")
    program = textwrap.dedent("""
        from tests.e2e import sample
        with sample.app.run(show_progress=False):
            sample.sleep.remote(300)
    """)
    client = subprocess.Popen([sys.executable, "-c", program], env=caller.env)
    wait_until(lambda: any(w.state == "running" for w in ann.status().workers), "ann at work")
    client.send_signal(signal.SIGKILL)
    client.wait()
    killed = time.monotonic()
    wait_until(lambda: not any(w.state == "running" for w in ann.status().workers), "the work's end")
    # "Within a second", with room for a slow machine: the other bound would be the 300 s of the call.
    assert time.monotonic() - killed < 20
    wait_until(lambda: ann.status().entries == 1, "the receipt")
    owner, entries = ann.journal()
    (entry,) = verify(owner, entries)
    assert entry.receipt.inputs == 1


def test_ctrl_c_ends_a_run_and_its_work(mesh):
    caller, ann = mesh.caller(), mesh.provider("ann")
    wait_until(lambda: len(caller.status().peers) == 1, "finding ann")
    file = mesh.folder / "long.py"
    file.write_text(LONG)
    command = [sys.executable, "-m", "potluck.cli.main", "run", str(file)]
    run = subprocess.Popen(command, env=caller.env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: any(w.state == "running" for w in ann.status().workers), "ann at work")
    interrupted = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=PATIENCE_S)[1]
    wait_until(lambda: not any(w.state == "running" for w in ann.status().workers), "the work's end")
    # As above: the other bound would be the 300 s of the call.
    assert time.monotonic() - interrupted < 20
    assert run.returncode == 1
    assert "Traceback" not in said
    assert "Aborted" in said


LONG = """
import time
import potluck

app = potluck.App("long")

@app.function()
def nap():
    time.sleep(300)

@app.local_entrypoint()
def main():
    nap.remote()
"""


def test_a_killed_caller_node_leaves_a_receipt_with_one_signature(mesh, use_node):
    caller = mesh.caller()
    ann = mesh.provider("ann")
    wait_until(lambda: len(caller.status().peers) == 1, "finding ann")
    use_node(caller)

    def call():
        with pytest.raises(Exception, match="connection"), sample.app.run(show_progress=False):
            sample.sleep.remote(300)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: any(w.state == "running" for w in ann.status().workers), "ann at work")
    caller.kill()
    thread.join()
    # And a dispute for what it claims.
    wait_until(lambda: ann.status().entries == 2, "the receipt")
    wait_until(lambda: not any(w.state == "running" for w in ann.status().workers), "the end of the work")
    owner, entries = ann.journal()
    entry, dispute = verify(owner, entries)
    assert not entry.countersigned
    assert entry.receipt.reason
    assert dispute.content.claimed_us == entry.receipt.lease_us


def test_a_frozen_provider_is_noticed_and_its_inputs_go_elsewhere(mesh, use_node):
    caller, (ann, bob) = trio_mesh(mesh)
    use_node(caller)
    with sample.app.run(show_progress=False):
        results = sample.slow_square.map(range(12))
        seen = [next(results)]
        wait_until(lambda: any(w.state == "running" for w in bob.status().workers), "bob at work")
        bob.process.send_signal(signal.SIGSTOP)
        try:
            seen += list(results)
        finally:
            bob.process.send_signal(signal.SIGCONT)
    assert seen == [x * x for x in range(12)]
    assert ann.status().name == "ann"


def test_a_provider_that_stops_says_so_and_is_replaced(mesh, use_node):
    caller, (ann, bob) = trio_mesh(mesh)
    use_node(caller)
    with sample.app.run(show_progress=False):
        results = sample.slow_square.map(range(16))
        seen = [next(results)]
        assert bob.stop() == 0
        seen += list(results)
    assert seen == [x * x for x in range(16)]
    assert ann.status().name == "ann"


def test_a_peer_whose_clock_is_an_hour_off_is_named_and_not_used(mesh, use_node):
    caller = mesh.caller()
    mesh.provider("ann", "--clock-offset-s", "3600")
    wait_until(lambda: any("60 min ahead" in peer.note for peer in caller.status().peers), "the note about ann")
    use_node(caller)
    with sample.app.run(show_progress=False), pytest.raises(NoPeerError) as caught:
        sample.add.remote(1)
    assert "60 min ahead" in caught.value.why


def test_a_program_spawns_on_after_its_node_was_restarted(mesh, use_node):
    node = use_node(mesh.node("ann", "--cpus", "1"))
    for _ in range(2):
        with sample.app.run(show_progress=False):
            assert sample.add.spawn(1, 2).get() == 3
        node.kill()
        node.start()


def test_two_nodes_on_one_data_folder(mesh):
    first = mesh.caller()
    second = subprocess.run(
        [sys.executable, "-m", "potluck_node.main"], env=first.env, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "Another node already works on" in second.stderr
    assert str(first.process.pid) in second.stderr
    assert "potluck down" in second.stderr
    assert first.status().name == "cas"


def test_no_node_and_none_can_be_started(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("POTLUCK_HOME", str(blocked / "home"))
    with pytest.raises(NodeStartError) as caught, sample.app.run(show_progress=False):
        pass
    assert "none can be started" in caught.value.what
    assert "POTLUCK_HOME" in caught.value.fix


def test_no_node_and_the_node_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("POTLUCK_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NodeStartError) as caught, sample.app.run(show_progress=False):
        pass
    assert "pip install 'potluck[node]'" in caught.value.fix


class TestBadClients:
    """What a broken or newer client may send to the control socket."""

    @pytest.fixture
    def connection(self, trio_of_nodes):
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(str(trio_of_nodes.nodes[0].home / "node.sock"))
            made.settimeout(30)
            yield made
        assert trio_of_nodes.nodes[0].status().name == "cas"

    def answer(self, connection):
        reader, data = FrameReader(), b""
        while data := connection.recv(65536):
            for frame in reader.feed(data):
                return wire.decode(frame, control.FromNode)
        return None

    def test_garbage(self, connection):
        connection.sendall(encode_frame(b"\xc1garbage"))
        assert self.answer(connection).failure.kind == "remote-protocol"

    def test_a_frame_that_is_too_large(self, connection):
        connection.sendall(b"\xff\xff\xff\xff")
        assert "at most" in self.answer(connection).failure.what

    def test_a_newer_version(self, connection):
        connection.sendall(encode_frame(wire.encode(control.Hello(wire.PROTOCOL + 1, "99.0"))))
        failure = self.answer(connection).failure
        assert failure.kind == "version"
        assert "Upgrade the node" in failure.fix

    def test_an_older_version(self, connection):
        connection.sendall(encode_frame(wire.encode(control.Hello(wire.PROTOCOL - 1, "0.0"))))
        assert "Upgrade the program" in self.answer(connection).failure.fix

    def test_a_message_before_hello(self, connection):
        connection.sendall(encode_frame(wire.encode(control.AskStatus(1))))
        assert "hello" in self.answer(connection).failure.what

    def test_half_a_frame(self, connection):
        connection.sendall(b"\x00\x00")


def test_the_node_ends_when_told_and_leaves_no_socket(mesh):
    node = mesh.caller()
    done = run_cli(node, "down")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: node.process.poll() is not None, "the node's end")
    assert node.process.returncode == 0
    assert not (node.home / "node.sock").exists()
    again = run_cli(node, "down")
    assert again.returncode == 1
    assert "potluck up" in again.stderr


def test_a_client_that_floods_a_call_with_inputs_is_cut_off(trio_of_nodes):
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(str(trio_of_nodes.nodes[0].home / "node.sock"))
        made.settimeout(30)
        spec = wire.FunctionSpec("a", "f", "ab" * 32, "3.11", "m", "f", resources=wire.Resources(("H100",)))
        flood = [control.Hello(wire.PROTOCOL, "1"), control.OpenCall(1, spec)]
        flood += [control.CallInput(1, index, b"") for index in range(control.INPUTS_AHEAD_MAX + 1)]
        made.sendall(b"".join(encode_frame(wire.encode(message)) for message in flood))
        reader, seen = FrameReader(), []
        while data := made.recv(65536):
            seen += [wire.decode(frame, control.FromNode) for frame in reader.feed(data)]
    assert "inputs on the way" in seen[-1].failure.what
    assert not trio_of_nodes.nodes[0].status().calls
