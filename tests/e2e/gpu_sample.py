"""Functions with GPUs for end-to-end tests on a fake machine."""

import os
import time

import potluck

app = potluck.App("gpus")


def seen(seconds: float) -> tuple[list[str], list[str], list[str]]:
    time.sleep(seconds)
    nodes = sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))
    driver = sorted(os.listdir("/run/nvidia/lib"))
    return os.environ["CUDA_VISIBLE_DEVICES"].split(","), nodes, driver


@app.function(gpu="any")
def one(seconds: float = 0.0) -> tuple[list[str], list[str], list[str]]:
    return seen(seconds)


@app.function(gpu="any")
def metered(seconds: float) -> str:
    """Under a name by which the test finds the process."""
    with open("/proc/self/comm", "w") as name:
        name.write("metered")
    return seen(seconds)[0][0]


@app.function(gpu="any")
def timed(seconds: float) -> tuple[int, int]:
    """When it began and ended, Unix microseconds; under a name by which its process is found."""
    begin_us = time.time_ns() // 1000
    with open("/proc/self/comm", "w") as name:
        name.write("timed")
    time.sleep(seconds)
    with open("/proc/self/comm", "w") as name:
        name.write("python")
    return begin_us, time.time_ns() // 1000


@app.function(gpu="H100:2")
def two() -> tuple[list[str], list[str], list[str]]:
    return seen(0)


@app.function(gpu=["B200", "H100:>=40GB"])
def fallback() -> tuple[list[str], list[str], list[str]]:
    return seen(0)


@app.function(gpu="B200")
def none() -> None:
    pass


@app.function(gpu="any")
def amd() -> tuple[list[str], str | None, str]:
    """Of AMD's devices, sysfs and variables, what is seen."""
    nodes = [name for name in ("kfd", "dri/renderD128", "nvidiactl") if os.path.exists(f"/dev/{name}")]
    with open("/sys/class/drm/card0/device/unique_id") as file:
        return nodes, os.environ.get("HIP_VISIBLE_DEVICES"), file.read().strip()


@app.function(gpu="any:4GB")
def sharer(seconds: float) -> str:
    """Under a name by which its process is found."""
    with open("/proc/self/comm", "w") as name:
        name.write("metered")
    return seen(seconds)[0][0]


@app.function(gpu="any:4GB")
def share() -> None:
    pass


@app.function()
def plain() -> bool:
    return "CUDA_VISIBLE_DEVICES" not in os.environ and not os.path.exists("/dev/nvidiactl")
