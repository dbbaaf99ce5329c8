"""Functions with GPUs on a machine with two, played by a fake driver: what they see, who waits, and what is billed."""

import contextlib
import json
import threading
import time
from pathlib import Path

import pytest
from tests.e2e import gpu_sample as sample
from tests.e2e.mesh import Mesh, run_cli, wait_until

from potluck.errors import NoPeerError
from potluck.wire.history import AskGpus, GpusTold
from potluck_ledger.journal import verify
from potluck_node.devices.processes import owners


@pytest.fixture(scope="module")
def nodes(machine, tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        caller = mesh.caller()
        flags = ("--cpus", "4", "--memory-mib", "4096", "--device-root", str(machine.root))
        provider = mesh.node("ann", *flags, env=machine.env)
        wait_until(lambda: caller.status().peers and caller.status().peers[0].gpus, "finding the GPUs")
        yield caller, provider
    finally:
        mesh.stop()


@pytest.fixture(autouse=True)
def running(nodes, use_node):
    use_node(nodes[0])
    with sample.app.run(show_progress=False):
        yield


def states(node):
    return [gpu.state for gpu in node.status().gpus]


def receipts(node):
    return [entry.receipt for entry in verify(*node.journal())]


def metered_below(node):
    for pid in owners({"": node}):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "metered\n":
                yield pid


def test_any_sees_exactly_one_device(machine):
    uuids, files, driver = sample.one.remote()
    assert uuids in ([machine.uuid(0)], [machine.uuid(1)])
    assert files == sorted([f"nvidia{uuids[0][-1]}", "nvidia-uvm", "nvidiactl"])
    assert driver == ["libcuda.so.1", "libnvidia-ml.so.1"]


def test_two_get_both_and_a_list_falls_back(machine):
    uuids, files, _ = sample.two.remote()
    assert sorted(uuids) == [machine.uuid(0), machine.uuid(1)]
    assert {"nvidia0", "nvidia1"} <= set(files)
    assert len(sample.fallback.remote()[0]) == 1


def test_a_function_without_gpus_sees_none():
    assert sample.plain.remote()


def test_two_at_once_get_different_gpus_and_a_third_waits(nodes):
    begun = time.monotonic()
    results = list(sample.one.map([1.5, 1.5, 1.5]))
    assert time.monotonic() - begun > 3
    assert len({uuids[0] for uuids, *_ in results}) == 2


def test_what_nobody_has_or_lends_is_said(nodes):
    with pytest.raises(NoPeerError, match="B200"):
        sample.none.remote()
    with pytest.raises(NoPeerError):
        sample.share.remote()


def test_status_shows_each_gpu_with_its_state(nodes):
    shown = run_cli(nodes[1], "status").stdout
    assert "NVIDIA H100 80GB HBM3" in shown
    assert "free" in shown or "leased" in shown


def test_the_receipt_carries_lease_busy_and_energy(machine, nodes):
    """The driver says 50 % for the very process that runs the function, and 100 W."""
    before = len(receipts(nodes[0]))
    result = []
    thread = threading.Thread(target=lambda: result.append(sample.metered.remote(4.0)))
    thread.start()
    pids = []
    wait_until(lambda: pids.extend(metered_below(nodes[1].process.pid)) or pids, "the call running")
    machine.say(*(f"gpu {gpu} busy {pids[0]} 1 1000000 500000 100" for gpu in (0, 1)))
    thread.join()
    machine.drop("gpu 0 busy")
    machine.drop("gpu 1 busy")
    wait_until(lambda: len(receipts(nodes[0])) > before, "the receipt")
    receipt = receipts(nodes[0])[-1]
    assert receipt.gpu == result[0]
    assert receipt.gpu_model == "NVIDIA H100 80GB HBM3"
    assert 4_000_000 <= receipt.lease_us < 4_600_000
    assert receipt.busy_us == pytest.approx(2_000_000, rel=0.25)
    assert receipt.energy_mj == pytest.approx(400_000, rel=0.1)
    assert receipt.method == "wall; busy: processes; energy: counter"
    assert "sampled" in receipt.quality
    listed = run_cli(nodes[0], "ledger", "list").stdout
    assert "J" in listed


def test_a_gpu_that_the_owner_uses_is_not_leased(machine, nodes):
    machine.say("gpu 0 process 1 4000 c", "gpu 1 process 1 4000 c")
    result = []
    try:
        wait_until(lambda: states(nodes[1]) == ["used by the owner"] * 2, "seeing the owner's programs")
        thread = threading.Thread(target=lambda: result.append(sample.one.remote()))
        thread.start()
        thread.join(2)
        assert not result
    finally:
        machine.drop("gpu 0 process")
        machine.drop("gpu 1 process")
    thread.join()
    assert result


def test_a_lost_gpu_ends_its_worker_and_the_call_runs_on_the_other(machine, nodes):
    """Last in this file: the GPU stays lost for a while."""
    provider = nodes[1]
    wait_until(lambda: states(provider) == ["free", "free"], "both GPUs free")
    result = []
    thread = threading.Thread(target=lambda: result.append(sample.one.remote(3.0)))
    thread.start()
    wait_until(lambda: "leased" in states(provider), "the lease")
    wait_until(lambda: any(worker.state == "running" for worker in provider.status().workers), "the call running")
    lost = states(provider).index("leased")
    machine.say(f"gpu {lost} lost 1")
    wait_until(lambda: "fallen off the bus" in states(provider)[lost], "noticing it")
    thread.join()
    assert result[0][0] == [machine.uuid(1 - lost)]


def test_who_is_on_a_gpu_is_told_and_shown(nodes, machine):
    caller, provider = nodes
    (uuid,), _, _ = sample.one.remote()
    client = provider.client()
    try:
        told = client.ask(AskGpus, GpusTold)
    finally:
        client.close()
    found = {gpu.reading.uuid: gpu for gpu in told.gpus}
    assert set(found) == {machine.uuid(0), machine.uuid(1)}
    assert (found[uuid].state, found[uuid].reading.lent_milli, found[uuid].reading.temperature_c) == (
        "leased",
        1000,
        61,
    )
    assert [(each.caller, each.function.rpartition(".")[2]) for each in found[uuid].users] == [
        (caller.status().peer, "one")
    ]
    shown = run_cli(provider, "history", "--since", "1h").stdout
    assert "leased" in shown
    assert "GPU 0 load │" in shown
    data = json.loads(run_cli(provider, "history", "--json").stdout)
    assert [gpu["model"] for gpu in data["gpus"]] == [told.gpus[0].model] * 2
