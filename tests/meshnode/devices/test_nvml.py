"""The real nvidia-ml-py against the fake driver, which plays machines from a script."""

import ctypes
import threading
import time

import pytest
from tests.fake_nvml import A10G, H100, FakeMachine

from potluck_node.devices import local, nvml
from potluck_node.devices.local import LocalDevices
from potluck_node.devices.nvml import Nvml

LIBRARIES = []


@pytest.fixture(scope="session", autouse=True)
def driver(tmp_path_factory):
    """Loaded by its name once, so that nvidia-ml-py, which asks for that name, gets it."""
    machine = FakeMachine(tmp_path_factory.mktemp("driver"))
    LIBRARIES.append(ctypes.CDLL(str(machine.library), ctypes.RTLD_GLOBAL))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = FakeMachine(tmp_path)
    monkeypatch.setenv("FAKE_NVML_SCRIPT", str(made.script))
    return made


@pytest.fixture
def driver_of(machine):
    return Nvml(machine.root)


def test_each_gpu_is_listed_with_what_it_is_and_does(machine, driver_of):
    machine.say("gpu 0 used 100", "gpu 0 process 4242 96 c", "gpu 0 process 17 4 g")
    found = driver_of.inventory()
    assert found.findings == ()
    one, two = found.devices
    assert (one.uuid, one.model, one.memory_mib, one.memory_free_mib) == (machine.uuid(0), H100, 81559, 81459)
    assert (one.driver, one.capability, one.clock_mhz, one.power_mw, one.temperature_c) == (
        "550.54.14", 90, 1410, 100_000, 61,
    )  # fmt: skip
    assert one.throttled == ("power cap",)
    assert [(each.pid, each.memory_mib, each.graphics) for each in one.processes] == [(4242, 96, False), (17, 4, True)]
    assert one.nodes == (machine.root / "dev/nvidia0",)
    assert one.near == ((two.uuid, 10),)
    assert not one.fault


def test_a_gpu_that_falls_off_the_bus_stays_listed_with_the_reason(machine, driver_of):
    driver_of.inventory()
    machine.say("gpu 1 lost 1")
    found = driver_of.inventory()
    assert [device.uuid for device in found.devices] == [machine.uuid(0), machine.uuid(1)]
    assert "fallen off the bus" in found.devices[1].fault
    assert "fallen off the bus" in found.findings[0]
    assert "fallen off the bus" in driver_of.sample([machine.uuid(1)])[0].fault


def test_one_that_was_lost_before_we_came_is_listed_as_unknown(machine, driver_of):
    machine.say("gpu 1 lost 1")
    assert driver_of.inventory().devices[1].uuid == "unknown-1"


def test_one_that_disappears_is_said_to_have(machine, driver_of):
    driver_of.inventory()
    machine.drop("gpu 1 ")
    assert driver_of.inventory().devices[1].fault == "has disappeared"


def test_memory_errors_and_an_old_driver_are_faults(machine, driver_of):
    machine.say("gpu 0 ecc 3")
    assert "3 uncorrectable memory errors" in driver_of.inventory().devices[0].fault
    machine.drop("driver")
    machine.say("driver 390.157")
    found = driver_of.inventory()
    assert all("older than" in device.fault for device in found.devices)
    assert "install a newer one" in found.findings[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(9, "modprobe nvidia"), (18, "restart the machine"), (13, "older than"), (999, "cannot be used")],
)
def test_a_driver_that_does_not_start_is_a_finding(machine, driver_of, answer, words):
    machine.say(f"init {answer}")
    found = driver_of.inventory()
    assert found.devices == ()
    assert words in found.findings[0]


def test_a_gpu_cut_into_instances_is_offered_as_these(machine, driver_of):
    machine.say(f"gpu 0 mig MIG-a {H100} MIG 1g.10gb", f"gpu 0 mig MIG-b {H100} MIG 1g.10gb")
    table = machine.root / "proc/driver/nvidia-caps/mig-minors"
    table.parent.mkdir(parents=True)
    table.write_text("config 1\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\ngpu0/gi2/access 21\n")
    a, b, whole = driver_of.inventory().devices
    assert [device.uuid for device in (a, b, whole)] == ["MIG-a", "MIG-b", machine.uuid(1)]
    assert a.slice
    assert a.model.endswith("MIG 1g.10gb")
    assert [node.name for node in a.nodes] == ["nvidia0", "nvidia-cap12", "nvidia-cap13"]
    reading = driver_of.sample(["MIG-a"])[0]
    assert (reading.processes, reading.device_milli) == (None, None)


def test_readings_follow_the_schedule(machine, driver_of):
    driver_of.inventory()
    machine.say(f"gpu 0 busy 7 {time.time_ns() // 1000 - 10_000_000} 1000000 1000000 60")
    first = driver_of.sample([machine.uuid(0)])[0]
    assert [(use.pid, use.milli) for use in first.processes] == [(7, pytest.approx(600, abs=20))]
    assert first.device_milli == 600
    machine.drop("gpu 0 busy")
    second = driver_of.sample([machine.uuid(0)])[0]
    assert second.processes == ()
    assert second.energy_mj >= first.energy_mj > 1_000_000


def test_a_driver_that_does_not_tell_processes_apart_says_so(machine, driver_of):
    driver_of.inventory()
    machine.say("gpu 0 utilisation 0")
    assert driver_of.sample([machine.uuid(0)])[0].processes is None


async def test_a_sandbox_gets_the_leased_gpu_alone(machine):
    devices = LocalDevices(machine.root)
    await devices.inventory()
    binding = devices.binding([machine.uuid(1)])
    assert [path.name for path in binding.devices] == ["nvidia1", "nvidiactl", "nvidia-uvm"]
    assert [place for _, place in binding.binds] == [
        "/run/nvidia/lib/libcuda.so.1", "/run/nvidia/lib/libnvidia-ml.so.1",
    ]  # fmt: skip
    assert binding.env["CUDA_VISIBLE_DEVICES"] == machine.uuid(1)


async def test_wsl_is_not_supported_and_says_so(machine):
    (machine.root / "dev/dxg").touch()
    found = await LocalDevices(machine.root).inventory()
    assert found.devices == ()
    assert "WSL" in found.findings[0]


async def test_a_driver_that_hangs_is_given_up_and_its_gpus_are_faulty(machine, monkeypatch):
    devices = LocalDevices(machine.root)
    await devices.inventory()
    let_go = threading.Event()
    monkeypatch.setattr(local, "ANSWER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(nvml.Nvml, "inventory", lambda self: let_go.wait())
    try:
        found = await devices.inventory()
    finally:
        let_go.set()
    assert len(found.devices) == 2
    assert all("does not answer" in device.fault for device in found.devices)


def test_other_models_have_other_names(tmp_path, monkeypatch):
    made = FakeMachine(tmp_path, gpus=1, name=A10G, memory_mib=23028)
    monkeypatch.setenv("FAKE_NVML_SCRIPT", str(made.script))
    (device,) = Nvml(made.root).inventory().devices
    assert device.model == A10G
