"""What a sandbox gets to use its GPUs, as the Container Device Interface lists it: device files, libraries, variables.

Of NVIDIA: the leased /dev/nvidiaN (with MIG its capability files too), the control files that every program needs, and
the driver's libraries, which must be the host's since they fit its kernel module alone. Compare what
`nvidia-ctk cdi generate` writes. Of AMD: /dev/kfd and the leased render nodes; the libraries come with the image.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from potluck_node.devices.interface import Binding, Device

# Where the driver's files are inside; images have nothing below /run.
PLACE = "/run/nvidia"

# What computing needs of the driver's libraries: no display, no video.
LIBRARIES = (
    "libcuda.so.1",
    "libcudadebugger.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-nvvm.so.4",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-gpucomp.so",
    "libnvidia-opencl.so.1",
    "libnvidia-pkcs11.so",
    "libnvidia-pkcs11-openssl3.so",
)
# Of these names the version is the driver's: libnvidia-gpucomp.so.550.54.14.
_VERSIONED = re.compile(r"(libnvidia-(?:gpucomp|pkcs11|pkcs11-openssl3)\.so)\.\d+(\.\d+)*")

_CONTROLS = ("dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools")
_LDCONFIG_TIMEOUT_S = 10.0


def binding(devices: Sequence[Device], root: Path = Path("/")) -> Binding:
    """For these devices, all of one maker."""
    if all(device.maker == "nvidia" for device in devices):
        return _nvidia(devices, root)
    nodes = {node for device in devices for node in device.nodes}
    numbers = ",".join(str(number) for number in range(len(devices)))
    # ROCm finds out which GPUs there are from sysfs; it numbers those that it may open.
    binds = ((root / "sys", "/sys"),)
    return Binding((root / "dev/kfd", *sorted(nodes)), binds, {"HIP_VISIBLE_DEVICES": numbers})


def _nvidia(devices: Sequence[Device], root: Path) -> Binding:
    uuids = ",".join(device.uuid for device in devices)
    own = list(dict.fromkeys(node for device in devices for node in device.nodes))
    controls = [root / name for name in _CONTROLS if (root / name).exists()]
    libraries = tuple((path, f"{PLACE}/lib/{name}") for name, path in sorted(driver_libraries(root).items()))
    tool = root / "usr/bin/nvidia-smi"
    tools = ((tool, f"{PLACE}/bin/nvidia-smi"),) if tool.exists() else ()
    env = {"CUDA_VISIBLE_DEVICES": uuids, "NVIDIA_VISIBLE_DEVICES": uuids, "LD_LIBRARY_PATH": f"{PLACE}/lib"}
    return Binding((*own, *controls), (*libraries, *tools), env)


def driver_libraries(root: Path = Path("/")) -> dict[str, Path]:
    """Name → file of each of the driver's libraries that this machine has. Below another root: what is in its lib/."""
    found = _cached() if root == Path("/") else [(file.name, file) for file in (root / "lib").glob("lib*")]
    return {name: path.resolve() for name, path in found if name in LIBRARIES or _VERSIONED.fullmatch(name)}


def _cached() -> Iterator[tuple[str, Path]]:
    """What the loader's cache lists for 64 bits."""
    listed = subprocess.run(
        ["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=_LDCONFIG_TIMEOUT_S, check=False
    ).stdout
    for line in listed.splitlines():
        entry = re.fullmatch(r"\s+(\S+) \(libc6,(?:x86-64|AArch64).*\) => (/.+)", line)
        if entry:
            yield entry[1], Path(entry[2])
