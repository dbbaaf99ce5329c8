"""The watch over a node's GPUs, on devices played by hand, and whose processes are whose."""

import fcntl
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import trio

from potluck.wire.offer import FREE, USED
from potluck_node import common_files
from potluck_node.clock import SystemClock
from potluck_node.core import provider_events as ev
from potluck_node.core.gpu_meter import ProcessUse
from potluck_node.core.gpus import Gpu, GpuDesk
from potluck_node.core.policy_rules import GpuFacts
from potluck_node.devices.interface import Binding, Device, GpuProcess, Inventory, Reading
from potluck_node.devices.processes import owners
from potluck_node.gpu_claims import GpuClaims
from potluck_node.gpus import OTHERS_GRAPHICS_MIB, SAMPLE_EVERY_S, GpuWatch

ONE = Device("GPU-1", "0", "nvidia", "NVIDIA A10G", 23028, 22000)
TWO = Device("GPU-2", "1", "nvidia", "NVIDIA A10G", 23028, 22000)


class Played:
    """Devices that are as the test says."""

    def __init__(self, *devices):
        self.devices, self.reading = devices, {}
        self.sampled = []

    async def inventory(self):
        await trio.lowlevel.checkpoint()
        return Inventory(self.devices)

    async def sample(self, uuids):
        await trio.lowlevel.checkpoint()
        self.sampled.append(list(uuids))
        return tuple(Reading(uuid, **self.reading) for uuid in uuids)

    def binding(self, uuids):
        return Binding()


class Watched:
    def __init__(self, *devices, lent="all", sandboxes=None):
        self.desk, self.events = GpuDesk(), []
        self.devices = Played(*devices)
        self.watch = GpuWatch(self.devices, lent, self.desk, lambda: sandboxes or {}, self.take, SystemClock())

    def take(self, event):
        self.events.append(event)
        if isinstance(event, ev.GpusSeen):
            self.desk.seen(event.gpus)

    def states(self):
        return [gpu.state for gpu in self.events[-1].gpus]


@pytest.fixture
def child():
    """A process of ours that lives until its input is closed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait()


@pytest.mark.parametrize(
    ("lent", "uuids"),
    [("all", ["GPU-1", "GPU-2"]), ("none", []), (("GPU-2",), ["GPU-2"]), ((0,), ["GPU-1"]), (("1", "9"), ["GPU-2"])],
)
async def test_what_is_lent_is_what_the_owner_names(lent, uuids):
    watched = Watched(ONE, TWO, lent=lent)
    await watched.watch.look()
    assert [gpu.uuid for gpu in watched.events[0].gpus] == uuids


@pytest.mark.parametrize(
    ("process", "state"),
    [
        (GpuProcess(1, 4000), USED),
        (GpuProcess(1, None), USED),
        (GpuProcess(1, 10), FREE),
        (GpuProcess(1, 300, graphics=True), FREE),
        (GpuProcess(1, OTHERS_GRAPHICS_MIB + 1, graphics=True), USED),
        (GpuProcess(os.getpid(), 4000), FREE),
    ],
)
async def test_programs_of_the_owner_keep_a_gpu_and_ours_do_not(process, state):
    watched = Watched(Device("GPU-1", "0", "nvidia", "NVIDIA A10G", 23028, processes=(process,)))
    await watched.watch.look()
    assert watched.states() == [state]


async def test_gpus_are_sampled_only_while_they_are_held(autojump_clock, monkeypatch):
    async def inline(function, *arguments):
        """Virtual time does not wait for threads."""
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    watched = Watched(ONE, TWO)
    async with trio.open_nursery() as nursery:
        await nursery.start(watched.watch.serve)
        await trio.sleep(20)
        assert watched.devices.sampled == []
        watched.desk.take("w", ("any",))
        watched.watch.hurry()
        await trio.sleep(SAMPLE_EVERY_S * 4.5)
        assert 4 <= len(watched.devices.sampled) <= 6
        assert watched.devices.sampled[0] == ["GPU-1"]
        watched.desk.release("w")
        await trio.sleep(20)
        assert len(watched.devices.sampled) <= 6
        nursery.cancel_scope.cancel()


async def test_use_is_told_by_worker(child):
    watched = Watched(ONE, sandboxes={"w": child.pid})
    await watched.watch.look()
    watched.desk.take("w", ("any",))
    now_us = time.time_ns() // 1000 + 1_000_000
    watched.devices.reading = {
        "processes": (ProcessUse(child.pid, 300, now_us), ProcessUse(1, 200, now_us)),
        "present": (GpuProcess(child.pid, 100), GpuProcess(1, 100)),
    }
    await watched.watch.sample()
    (sample,) = [event.sample for event in watched.events if isinstance(event, ev.GpuSampled)]
    assert sample.workers == {"w": 300}
    assert sample.others


async def test_a_gpu_that_fails_in_a_sample_is_looked_at_at_once():
    watched = Watched(ONE)
    await watched.watch.look()
    watched.desk.take("w", ("any",))
    watched.devices.reading = {"fault": "has fallen off the bus"}
    watched.devices.devices = (Device("GPU-1", "0", "nvidia", "NVIDIA A10G", 23028, fault="has fallen off the bus"),)
    await watched.watch.sample()
    assert watched.states() == ["has fallen off the bus"]


async def test_who_takes_more_than_a_share_is_reported(child):
    watched = Watched(ONE, sandboxes={"w": child.pid})
    watched.desk = watched.watch._desk = GpuDesk(share=True)
    await watched.watch.look()
    watched.desk.take("w", ("any:4GiB",))
    watched.devices.reading = {"present": (GpuProcess(child.pid, 4096), GpuProcess(1, 9000))}
    await watched.watch.sample()
    assert not any(isinstance(event, ev.LimitBroken) for event in watched.events)
    watched.devices.reading = {"present": (GpuProcess(child.pid, 4097),)}
    await watched.watch.sample()
    assert watched.events[-1] == ev.LimitBroken("w", "it took more of its GPU than its share", gpu_mib=4097)


async def test_the_policy_is_told_of_each_lent_gpu_before_the_core():
    warm = replace(ONE, temperature_c=71, power_mw=120_500, processes=(GpuProcess(1, 300), GpuProcess(os.getpid(), 9)))
    watched = Watched(warm, TWO, replace(TWO, uuid="GPU-3", index="2", fault="has died"), lent=(0, 2))
    told = []
    watched.watch.on_facts = lambda facts: told.append((facts, len(watched.events)))
    await watched.watch.look()
    first = GpuFacts("GPU-1", "0", True, 71, 120.5, 23028, 300)
    assert told == [((first, GpuFacts("GPU-3", "2")), 0)]


async def test_a_process_that_is_not_seen_may_be_that_of_whoever_holds_the_gpu():
    unseen = GpuProcess(2**22 + 1, 5000)
    watched = Watched(replace(ONE, processes=(unseen,)))
    told = []
    watched.watch.on_facts = lambda facts: told.append(facts[0].used)
    watched.desk.seen([Gpu("GPU-1", "NVIDIA A10G", 23028)])
    await watched.watch.look()
    watched.desk.seen([Gpu("GPU-1", "NVIDIA A10G", 23028)])
    watched.desk.take("w", ("any",))
    await watched.watch.look()
    assert told == [True, False]


async def test_the_load_of_a_gpu_is_the_owners_if_no_worker_had_it_of_late():
    watched = Watched(replace(ONE, load_milli=700))
    told = []
    watched.watch.on_facts = lambda facts: told.append(facts[0].others_milli)
    await watched.watch.look()
    watched.desk.take("w", ("any",))
    await watched.watch.look()
    watched.desk.release("w")
    await watched.watch.look()
    await watched.watch.look()
    assert told == [700, None, None, 700]


async def test_half_a_gpu_is_lent_and_the_rest_is_its_owners(child):
    watched = Watched(replace(ONE, processes=(GpuProcess(1, 9000),)), sandboxes={"w": child.pid})
    watched.watch.lent_memory = 0.5
    await watched.watch.look()
    (gpu,) = watched.events[-1].gpus
    assert (gpu.memory_mib, gpu.memory_free_mib, gpu.state) == (11514, 11514, FREE)
    watched.desk.take("w", ("any",))
    watched.devices.reading = {"present": (GpuProcess(child.pid, 11514), GpuProcess(1, 9000))}
    await watched.watch.sample()
    assert not any(isinstance(event, ev.LimitBroken) for event in watched.events)
    watched.devices.reading = {"present": (GpuProcess(child.pid, 11515),)}
    await watched.watch.sample()
    assert watched.events[-1].worker == "w"
    assert "11514 MiB are lent" in watched.events[-1].failure.what


def test_processes_belong_to_the_sandbox_that_they_descend_from(child):
    before_us = time.time_ns() // 1000 - 60_000_000
    found = owners({"w": child.pid, "gone": 0})
    assert found.keys() == {child.pid}
    name, started_us = found[child.pid]
    assert name == "w"
    assert before_us < started_us < time.time_ns() // 1000 + 1_000_000
    assert owners({"node": os.getpid()})[child.pid][0] == "node"


@pytest.fixture
def neighbour(tmp_path, child):
    """The file of another node, which is `child`, with its GPUs."""
    folder = tmp_path / "potluck-gpus"
    common_files.make(folder)
    file = os.open(folder / f"{os.getuid()}-other", os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)

    def tell(since_us, *uuids):
        os.pwrite(file, " ".join([str(child.pid), *(f"{uuid}={since_us}" for uuid in uuids)]).encode().ljust(200), 0)

    yield folder, tell
    os.close(file)


async def test_workers_of_another_node_are_no_programs_of_the_owner_and_the_earlier_has_the_gpu(child, neighbour):
    folder, tell = neighbour
    watched = Watched(replace(ONE, load_milli=900, processes=(GpuProcess(child.pid, 4000),)))
    # In truth the other is no child of ours.
    watched.watch.claims, watched.watch._pid, told = GpuClaims(folder), 0, []
    watched.watch.on_facts = told.extend
    await watched.watch.look()
    assert (told[-1].used, told[-1].neighbour, told[-1].others_milli) == (True, None, 900)
    assert watched.states() == [USED]
    tell(1, "GPU-1")
    await watched.watch.look()
    assert (told[-1].used, told[-1].neighbour, told[-1].others_milli, told[-1].others_mib) == (False, True, None, 0)
    assert watched.states() == [FREE]
    # Both took it in the same moment: the one that was a bit later gives way.
    watched.desk.take("w", ("any",))
    await watched.watch.sample()
    assert told[-1].neighbour
    tell(2**62, "GPU-1")
    await watched.watch.look()
    assert (told[-1].used, told[-1].neighbour) == (False, None)
    watched.watch.claims.close()


async def test_a_gpu_that_was_just_taken_is_looked_at_for_others_once(autojump_clock):
    watched, looks = Watched(ONE), []
    watched.watch.on_facts = looks.append
    await watched.watch.look()
    watched.desk.take("w", ("any",))
    await watched.watch.sample()
    await watched.watch.sample()
    assert len(looks) == 2
