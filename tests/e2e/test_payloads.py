"""Large arguments and results through real nodes, lanes and sandboxes."""

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from tests.e2e import payload_sample as sample
from tests.e2e.mesh import Mesh, Node, wait_until

LARGE = 9_000_001
HUGE = 150_000_000

needs_runsc = pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")


def check(function) -> None:
    data = os.urandom(LARGE)
    assert function.remote(data) == data[::-1]


@pytest.mark.parametrize("flags", [(), ("--no-lane",), ("--trust", "mesh")], ids=["lane", "stream", "trusted"])
def test_large_payloads_to_a_peer_and_back(mesh: Mesh, use_node, flags):
    caller = mesh.caller("cas", *flags)
    mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding ann")
    use_node(caller)
    with sample.app.run(show_progress=False):
        check(sample.turned)
        check(sample.turned_async)


@needs_runsc
def test_large_payloads_to_gvisor_and_back(mesh: Mesh, use_node):
    caller = mesh.caller()
    mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding ann")
    use_node(caller)
    with sample.app.run(show_progress=False):
        check(sample.turned_strictly)


def test_large_payloads_on_one_machine(mesh: Mesh, use_node):
    use_node(mesh.provider("ann"))
    with sample.app.run(show_progress=False):
        check(sample.turned)
        check(sample.turned_async)


def test_a_provider_killed_while_it_is_sent_a_payload_loses_nothing(mesh: Mesh, use_node):
    caller = mesh.caller()
    providers = [mesh.provider("ann"), mesh.provider("bob")]
    wait_until(lambda: len(caller.status().peers) == 2, "finding both providers")
    use_node(caller)
    data, results = os.urandom(HUGE), []
    with sample.app.run(show_progress=False):
        check(sample.turned)
        thread = threading.Thread(target=lambda: results.append(sample.turned.remote(data)))
        thread.start()
        victims: list[Node] = []

        def half_sent() -> bool:
            victims.extend(each for each in providers if receiving(each))
            return bool(victims)

        wait_until(half_sent, "a payload on its way")
        victims[0].kill()
        thread.join()
    assert results == [data[::-1]]


def receiving(node: Node) -> bool:
    """Whether the node has part of `HUGE`, and not all."""
    assert node.process
    for path in Path(f"/proc/{node.process.pid}/fd").iterdir():
        with suppress(OSError):
            if "memfd:potluck" in os.readlink(path) and 0 < path.stat().st_size < HUGE:
                return True
    return False
