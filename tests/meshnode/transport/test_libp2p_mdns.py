"""Peers find each other on the local network, in a network namespace that has only loopback, with multicast on it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

# Needs `unshare` and `ip`, and the right to make a user namespace.
NAMESPACE = ["unshare", "--map-root-user", "--net", "sh", "-c"]
PREPARE = "ip link set lo up multicast on && ip route add 224.0.0.0/4 dev lo"


def namespaces_work() -> bool:
    return subprocess.run([*NAMESPACE, PREPARE], capture_output=True, check=False).returncode == 0


@pytest.mark.e2e
def test_two_nodes_find_each_other():
    if not namespaces_work():
        pytest.skip("no network namespaces here")
    command = f"{PREPARE} && exec {sys.executable} -m tests.meshnode.transport.test_libp2p_mdns"
    done = subprocess.run([*NAMESPACE, command], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


async def find_each_other() -> None:
    from tests.conformance.check_transport import eventually
    from tests.meshnode.transport.test_libp2p import echoes, make, serving

    a, b = (make(listen=("/ip4/0.0.0.0/tcp/0",), mdns=True) for _ in "ab")
    async with serving(a, b):
        await eventually(lambda: b.peer in a.peers())
        await echoes(a, b)


if __name__ == "__main__":
    trio.run(find_each_other)
