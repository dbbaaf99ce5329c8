"""Other machines than one with two whole NVIDIA GPUs: an AMD card, MIG instances, an owner who lends parts."""

import contextlib
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from tests import fake_amd
from tests.e2e import gpu_sample as sample
from tests.e2e.mesh import wait_until
from tests.fake_nvml import H100, FakeMachine

from potluck.errors import ResourceExceededError
from potluck_node.devices.processes import owners


@pytest.fixture
def folder():
    """Not below pytest's own folder: sandboxes run as a user who may not look into it."""
    made = Path(tempfile.mkdtemp(prefix="potluck-gpus-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def lend(mesh, folder, use_node):
    """Start a caller and one provider with the devices of the folder."""

    def start(*flags, env=None):
        caller = use_node(mesh.caller())
        flags = ("--cpus", "4", "--memory-mib", "4096", "--device-root", str(folder / "root"), *flags)
        provider = mesh.node("ann", *flags, env=env)
        wait_until(lambda: caller.status().peers and caller.status().peers[0].gpus, "finding the GPU")
        return provider

    return start


def test_an_amd_card_is_bound(folder, lend):
    fake_amd.make(folder / "root")
    lend()
    with sample.app.run(show_progress=False):
        assert sample.amd.remote() == (["kfd", "dri/renderD128"], "0", "f00d")


def test_mig_instances_are_leased_one_by_one(folder, lend):
    machine = FakeMachine(folder, gpus=1)
    machine.say(f"gpu 0 mig MIG-a {H100} MIG 1g.10gb", f"gpu 0 mig MIG-b {H100} MIG 1g.10gb")
    lend(env=machine.env)
    with sample.app.run(show_progress=False):
        results = list(sample.one.map([1.5, 1.5]))
    assert sorted(uuids for uuids, *_ in results) == [["MIG-a"], ["MIG-b"]]


def test_a_gpu_that_is_shared_holds_several_and_ends_who_takes_too_much(folder, lend):
    machine = FakeMachine(folder, gpus=1)
    provider = lend("--gpu-share", env=machine.env)
    results, failures = [], []

    def call():
        try:
            results.append(sample.sharer.remote(8.0))
        except ResourceExceededError as error:
            failures.append(error)

    with sample.app.run(show_progress=False):
        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(metered(provider)) == 2, "both calls running on one GPU")
        machine.say(f"gpu 0 process {metered(provider)[0]} 9000 c")
        wait_until(lambda: failures, "the greedy one ending")
        machine.drop("gpu 0 process")
        for thread in threads:
            thread.join()
    assert results == [machine.uuid(0)]
    assert "9000 MiB" in failures[0].what


def metered(provider):
    """The processes that gave themselves this name."""
    found = []
    for pid in owners({"": provider.process.pid}):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "metered\n":
                found.append(pid)
    return found
