"""A fake NVIDIA driver: a library with NVML's symbols, built here, that plays a machine from a text file.

Device files are plain files below a folder that stands for /.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
H100, A10G = "NVIDIA H100 80GB HBM3", "NVIDIA A10G"


class FakeMachine:
    """Two GPUs unless told otherwise. `folder` must be readable by everyone: sandboxes run as another user."""

    def __init__(self, folder: Path, gpus: int = 2, name: str = H100, memory_mib: int = 81559) -> None:
        self.root, self.script = folder / "root", folder / "script"
        self.lines = ["driver 550.54.14", f"since {time.time_ns() // 1000}"]
        for number in range(gpus):
            self.lines += [
                f"gpu {number} uuid {self.uuid(number)}", f"gpu {number} name {name}",
                f"gpu {number} memory {memory_mib}", f"gpu {number} energy 1000000", f"gpu {number} power 100000",
            ]  # fmt: skip
        for device in [f"nvidia{number}" for number in range(gpus)] + ["nvidiactl", "nvidia-uvm"]:
            self._file(f"dev/{device}")
        # Where its nodes tell each other which GPUs they use.
        (self.root / "run/lock").mkdir(parents=True)
        (self.root / "run/lock").chmod(0o1777)
        build(self.root / "lib")
        self._file("lib/libcuda.so.1")
        self.write()

    @staticmethod
    def uuid(number: int) -> str:
        return f"GPU-00000000-0000-0000-0000-00000000000{number}"

    @property
    def library(self) -> Path:
        return self.root / "lib" / "libnvidia-ml.so.1"

    @property
    def env(self) -> dict[str, str]:
        """With these variables a program finds the fake driver."""
        return {"LD_LIBRARY_PATH": str(self.root / "lib"), "FAKE_NVML_SCRIPT": str(self.script)}

    def say(self, *lines: str) -> None:
        """Add lines; of two for the same figure the later one counts."""
        self.lines += lines
        self.write()

    def drop(self, start: str) -> None:
        """Take away the lines that begin so."""
        self.lines = [line for line in self.lines if not line.startswith(start)]
        self.write()

    def write(self) -> None:
        """Replaced in one step: it may be read at any time."""
        fresh = self.script.with_suffix(".new")
        fresh.write_text("\n".join(self.lines) + "\n")
        fresh.replace(self.script)

    def _file(self, name: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o666)


def build(folder: Path) -> Path:
    """Compile the library into a folder. Needs gcc, which `.ci/setup` installs."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{library.name}"]
    subprocess.run(["gcc", *options, str(SOURCE), "-o", str(library)], check=True)
    return library
