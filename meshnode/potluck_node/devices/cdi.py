"""What a sandbox gets to use its GPUs, as the Container Device Interface lists it: device files, libraries, variables.

Of NVIDIA: the leased /dev/nvidiaN (with MIG its capability files too), the control files that every program needs, and
the driver's libraries, which must be the host's since they fit its kernel module alone. Compare what
`nvidia-ctk cdi generate` writes. Of AMD: /dev/kfd and the leased render nodes; the libraries come with the image.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
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
_CACHE_LINE = re.compile(r"^\s+(\S+) \(libc6,(?:x86-64|AArch64)[^)]*\) => (/.+)$", re.MULTILINE)
_FOLDERS = ("/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/run/opengl-driver/lib")


def binding(devices: Sequence[Device], libraries: Mapping[str, Path], root: Path = Path("/")) -> Binding:
    """For these devices, all of one maker; `libraries` as `driver_libraries` finds them."""
    if all(device.maker == "nvidia" for device in devices):
        return _nvidia(devices, libraries, root)
    nodes = {node for device in devices for node in device.nodes}
    numbers = ",".join(str(number) for number in range(len(devices)))
    # ROCm finds out which GPUs there are from sysfs; it numbers those that it may open.
    binds = ((root / "sys", "/sys"),)
    return Binding((root / "dev/kfd", *sorted(nodes)), binds, {"HIP_VISIBLE_DEVICES": numbers})


def _nvidia(devices: Sequence[Device], found: Mapping[str, Path], root: Path) -> Binding:
    uuids = ",".join(device.uuid for device in devices)
    own = list(dict.fromkeys(node for device in devices for node in device.nodes))
    controls = [root / name for name in _CONTROLS if (root / name).exists()]
    libraries = tuple((path, f"{PLACE}/lib/{name}") for name, path in sorted(found.items()))
    tool = root / "usr/bin/nvidia-smi"
    tools = ((tool, f"{PLACE}/bin/nvidia-smi"),) if tool.exists() else ()
    env = {"CUDA_VISIBLE_DEVICES": uuids, "NVIDIA_VISIBLE_DEVICES": uuids, "LD_LIBRARY_PATH": f"{PLACE}/lib"}
    return Binding((*own, *controls), (*libraries, *tools), env)


def driver_libraries(root: Path = Path("/")) -> dict[str, Path]:
    """Name → file of each of the driver's libraries that this machine has, by the loader's cache and in the usual
    folders. Below another root: what is in its lib/. Blocking."""
    files = [file for folder in _FOLDERS for file in Path(folder).glob("lib*.so*")]
    if root != Path("/"):
        files = list((root / "lib").glob("lib*"))
    found = {file.name: file for file in files} | (_cached() if root == Path("/") else {})
    return {name: path.resolve() for name, path in found.items() if name in LIBRARIES or _VERSIONED.fullmatch(name)}


def _cached() -> dict[str, Path]:
    """What the loader's cache lists for 64 bits; nothing where there is no such cache."""
    command = ["/sbin/ldconfig", "-p"]
    try:
        listed = subprocess.run(
            command, capture_output=True, text=True, timeout=_LDCONFIG_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {name: Path(path) for name, path in _CACHE_LINE.findall(listed)}
