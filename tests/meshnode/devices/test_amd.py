"""AMD cards, from a copy of what amdgpu shows in sysfs and fdinfo."""

import pytest

from potluck_node.devices import amd
from potluck_node.devices.amd import Amd
from potluck_node.devices.cdi import binding

SLOT = "0000:03:00.0"


@pytest.fixture
def root(tmp_path):
    card = tmp_path / "sys/devices/pci0000:00" / SLOT
    files = {
        "vendor": "0x1002", "device": "0x744c", "unique_id": "f00d", "mem_info_vram_total": str(24 << 30),
        "mem_info_vram_used": str(1 << 30), "gpu_busy_percent": "37",
        "hwmon/hwmon3/power1_average": "120000000", "hwmon/hwmon3/temp1_input": "55000", "drm/renderD128/dev": "",
    }  # fmt: skip
    for name, text in files.items():
        (card / name).parent.mkdir(parents=True, exist_ok=True)
        (card / name).write_text(text + "\n")
    (tmp_path / "sys/class/drm/card0").mkdir(parents=True)
    (tmp_path / "sys/class/drm/card0/device").symlink_to(card)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
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
