"""Which of the driver's libraries are found."""

import subprocess
from pathlib import Path

from potluck_node.devices import cdi

CACHE = """3 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-ml.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvidia-ml.so.1
\tlibnvidia-gpucomp.so.550.54.14 (libc6,x86-64, OS ABI: Linux 3.2.0) => /lib/libnvidia-gpucomp.so.550.54.14
\tlibcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6) => /lib/i386-linux-gnu/libcuda.so.1
\tlibcudart.so.12 (libc6,x86-64) => /opt/cuda/libcudart.so.12
"""


def test_the_loaders_cache_is_read_for_this_drivers_64_bit_libraries(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, CACHE))
    found = cdi.driver_libraries()
    assert found["libcuda.so.1"].parent.name == "x86_64-linux-gnu"
    assert {"libnvidia-ml.so.1", "libnvidia-gpucomp.so.550.54.14"} <= found.keys()
    assert "libcudart.so.12" not in found


def test_a_machine_without_a_cache_is_no_error(monkeypatch):
    def no_ldconfig(*_, **__):
        raise FileNotFoundError("/sbin/ldconfig")

    monkeypatch.setattr(subprocess, "run", no_ldconfig)
    monkeypatch.setattr(cdi, "_FOLDERS", ("/nowhere",))
    assert cdi.driver_libraries(Path("/")) == {}
