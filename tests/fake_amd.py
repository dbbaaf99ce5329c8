"""What the kernel shows of one AMD card, as files below a folder that stands for /."""

from pathlib import Path

SLOT = "0000:03:00.0"

FILES = {
    "vendor": "0x1002",
    "device": "0x744c",
    "unique_id": "f00d",
    "mem_info_vram_total": str(24 << 30),
    "mem_info_vram_used": str(1 << 30),
    "gpu_busy_percent": "37",
    "hwmon/hwmon3/power1_average": "120000000",
    "hwmon/hwmon3/temp1_input": "55000",
    "drm/renderD128/dev": "226:128",
}


def make(root: Path) -> Path:
    """Returns the folder of the card's device."""
    card = root / "sys/devices/pci0000:00" / SLOT
    for name, text in FILES.items():
        (card / name).parent.mkdir(parents=True, exist_ok=True)
        (card / name).write_text(text + "\n")
    (root / "sys/class/drm/card0").mkdir(parents=True)
    (root / "sys/class/drm/card0/device").symlink_to(Path("../../../devices/pci0000:00") / SLOT)
    (root / "dev/dri").mkdir(parents=True)
    for node in ("dev/kfd", "dev/dri/renderD128"):
        (root / node).touch()
        (root / node).chmod(0o666)
    return card
