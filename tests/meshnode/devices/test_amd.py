"""AMD cards, from a copy of what amdgpu shows in sysfs and fdinfo."""

import pytest
from tests.fake_amd import SLOT, make

from potluck_node.devices import amd
from potluck_node.devices.amd import Amd
from potluck_node.devices.cdi import binding


@pytest.fixture
def root(tmp_path):
    make(tmp_path)
    return tmp_path


def use(root, pid, engine_ns, slot=SLOT):
    file = root / f"proc/{pid}/fdinfo/5"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"drm-pdev:\t{slot}\ndrm-memory-vram:\t2048 KiB\ndrm-engine-compute:\t{engine_ns} ns\n")


def test_a_card_is_listed_with_what_it_is_and_does(root):
    use(root, 77, 0)
    (card,) = Amd(root).inventory().devices
    assert (card.uuid, card.maker, card.memory_mib, card.memory_free_mib) == ("amd-f00d", "amd", 24576, 23552)
    assert (card.power_mw, card.temperature_c) == (120_000, 55)
    assert [(each.pid, each.memory_mib) for each in card.processes] == [(77, 2)]
    bound = binding([card], {}, root)
    assert [path.name for path in bound.devices] == ["kfd", "renderD128"]
    assert bound.env == {"HIP_VISIBLE_DEVICES": "0"}


def test_engine_time_of_each_process_is_its_use(root, monkeypatch):
    cards = Amd(root)
    cards.inventory()
    now = [10**18]
    monkeypatch.setattr(amd.time, "time_ns", lambda: now[0])
    use(root, 77, 5_000_000_000)
    use(root, 78, 9_000_000_000, slot="0000:04:00.0")
    assert cards.sample(["amd-f00d"])[0].processes is None
    now[0] += 10**9
    use(root, 77, 5_250_000_000)
    reading = cards.sample(["amd-f00d"])[0]
    assert [(each.pid, each.milli) for each in reading.processes] == [(77, 250)]
    assert reading.device_milli == 370


def test_a_card_that_is_pulled_out_is_a_fault(root):
    cards = Amd(root)
    cards.inventory()
    (root / "sys/class/drm/card0/device").unlink()
    assert cards.sample(["amd-f00d"])[0].fault == "has disappeared"
    assert cards.inventory().devices == ()


def test_without_the_compute_device_the_owner_is_told(root):
    (root / "dev/kfd").unlink()
    assert "ROCm" in Amd(root).inventory().findings[0]
