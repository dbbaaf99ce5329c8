"""On a machine with a real GPU: what is found, what a call sees, what it leaves behind, and what is billed."""

from pathlib import Path

import pytest
from tests.e2e.mesh import Mesh, wait_until
from tests.gpu import cuda_sample as sample

from potluck_ledger.journal import verify
from potluck_node.devices.local import LocalDevices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="this machine has no NVIDIA GPU"),
]

# What a driver keeps for itself may change by this while contexts come and go, MiB.
SLACK_MIB = 64


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        caller = mesh.caller()
        provider = mesh.node("ann", "--cpus", "2", "--memory-mib", "8192", "--idle-s", "3")
        wait_until(lambda: caller.status().peers and caller.status().peers[0].gpus, "finding the GPU")
        yield caller, provider
    finally:
        mesh.stop()


@pytest.fixture
def running(nodes, monkeypatch):
    monkeypatch.setenv("POTLUCK_HOME", str(nodes[0].home))
    with sample.app.run(show_progress=False):
        yield


async def test_the_inventory_is_sane():
    found = await LocalDevices().inventory()
    assert found.devices
    for device in found.devices:
        assert device.uuid.startswith(("GPU-", "MIG-"))
        assert 1024 < device.memory_mib < 1 << 20
        assert 0 <= device.memory_free_mib <= device.memory_mib
        assert all(node.exists() for node in device.nodes)
        assert device.power_mw is None or 1_000 < device.power_mw < 2_000_000
        assert device.temperature_c is None or 0 < device.temperature_c < 110
        assert device.load_milli is None or 0 <= device.load_milli <= 1000
    (reading,) = await _sample(found.devices[0].uuid)
    assert not reading.fault


async def _sample(uuid):
    devices = LocalDevices()
    await devices.inventory()
    return await devices.sample([uuid])


@pytest.mark.usefixtures("running")
class TestCalls:
    def test_any_sees_one_device(self):
        assert sample.devices_seen.remote() == 1

    def test_memory_is_free_after_the_end_and_the_next_finds_nothing_in_it(self, nodes):
        def free():
            return nodes[1].status().gpus[0].memory_free_mib

        before = free()
        sample.fill.remote(1024, 0xA5)
        assert sample.find.remote(1024, 0xA5) < 1024  # of 2³⁰ bytes, were it still there
        wait_until(lambda: not nodes[1].status().workers, "the sandbox ending")
        wait_until(lambda: free() >= before - SLACK_MIB, "its memory being free")

    @pytest.mark.parametrize("rest", [0.0, 0.5])
    def test_busy_agrees_with_the_gpus_own_clock(self, nodes, rest):
        before = len(nodes[0].journal()[1])
        busy_s = sample.work.remote(10.0, rest)
        wait_until(lambda: len(nodes[0].journal()[1]) > before, "the receipt")
        receipt = verify(*nodes[0].journal())[-1].receipt
        assert receipt.busy_us / 1e6 == pytest.approx(busy_s, rel=0.15)
        assert receipt.energy_mj > 0 or "energy: none" in receipt.method
