"""Functions that use a GPU through the driver's own library: no package is needed in the image."""

import ctypes
import time

import potluck

app = potluck.App("cuda")


class Cuda:
    """A context on the only device."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        self("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self("cuDeviceGet", ctypes.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)

    def __call__(self, name: str, *arguments: object) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with {status}")

    def count(self) -> int:
        number = ctypes.c_int()
        self("cuDeviceGetCount", ctypes.byref(number))
        return number.value

    def allocate(self, size: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def event(self) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self("cuEventCreate", ctypes.byref(made), 0)
        return made


@app.function(gpu="any", memory=2048)
def devices_seen() -> int:
    return Cuda().count()


@app.function(gpu="any", memory=2048)
def fill(mib: int, value: int) -> None:
    """Leave something in the GPU's memory."""
    cuda = Cuda()
    cuda("cuMemsetD8_v2", cuda.allocate(mib << 20), value, ctypes.c_size_t(mib << 20))


@app.function(gpu="any", memory=2048)
def find(mib: int, value: int) -> int:
    """How often a byte is in memory into which nothing was written yet."""
    cuda, found = Cuda(), 0
    pointer, piece = cuda.allocate(mib << 20), ctypes.create_string_buffer(1 << 20)
    for number in range(mib):
        source = ctypes.c_uint64(pointer.value + (number << 20))
        cuda("cuMemcpyDtoH_v2", piece, source, ctypes.c_size_t(1 << 20))
        found += piece.raw.count(value)
    return found


@app.function(gpu="any", memory=2048)
def work(seconds: float, rest: float) -> float:
    """Fill memory and pause in turns; returns how long the GPU was at it by its own events, seconds."""
    cuda = Cuda()
    pointer, size = cuda.allocate(1 << 30), 1 << 30
    begun, busy_ms = time.monotonic(), 0.0
    while time.monotonic() - begun < seconds:
        start, end, took = cuda.event(), cuda.event(), ctypes.c_float()
        cuda("cuEventRecord", start, None)
        for value in range(2000):
            cuda("cuMemsetD8Async", pointer, value % 256, ctypes.c_size_t(size), None)
        cuda("cuEventRecord", end, None)
        cuda("cuEventSynchronize", end)
        cuda("cuEventElapsedTime", ctypes.byref(took), start, end)
        busy_ms += took.value
        time.sleep(rest)
    return busy_ms / 1000
