"""Each GPU in a line, and its load over a day in another. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from potluck.sparks import over_time, sparks
from potluck.wire.control import Status
from potluck.wire.history import UNKNOWN, GpuNow, GpusTold, GpuUser, HistoryTold
from potluck.wire.offer import GpuOffer
from potluck_tui.model import Device, namer
from potluck_tui.words import duration, memory, plain

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
# The last hour beside the figures: ten minutes are a column, the last one is now.
SPARK_WIDTH = 7
# Beside six figures there is room for a short bar; for the model's name as well, from this width on.
GPU_BAR_WIDTH, MODELS_WIDTH = 8, 100
FULL = 1000


def gpu_devices(now: Status, told: GpusTold | None, history: HistoryTold | None) -> tuple[Device, ...]:
    """By the node's readings; before they have come, by what it offers."""
    name, found = namer(now), {gpu.reading.uuid: gpu for gpu in told.gpus} if told else {}
    return tuple(
        _read(number, found[gpu.uuid], history, name) if gpu.uuid in found else _offered(number, gpu)
        for number, gpu in enumerate(now.gpus)
    )


def _offered(number: int, gpu: GpuOffer) -> Device:
    used = gpu.memory_mib - gpu.memory_free_mib
    words = f"{plain(gpu.model)}, {plain(gpu.state)}, {memory(used)} of {memory(gpu.memory_mib)} in use"
    return Device(f"GPU {number}", used, gpu.memory_mib, words)


def _read(number: int, gpu: GpuNow, history: HistoryTold | None, name: Callable[[str], str]) -> Device:
    reading = gpu.reading
    cells = (
        figure(reading.load_milli, 10, "%"),
        figure(reading.temperature_c, 1, "°C"),
        figure(reading.power_mw, 1000, "W"),
        _memory(reading.memory_mib, gpu.memory_mib),
        _hour(gpu, history),
        who(gpu.users, name) or plain(gpu.state),
    )
    load = max(0, reading.load_milli)
    return Device(f"GPU {number}", load, FULL, plain(gpu.model), cells, reading.uuid)


def device_cells(device: Device, models: bool, name_width: int) -> Sequence[str]:
    """What stands in the line of a device, but for its bar: with a GPU's model where there is room for `models`."""
    name = device.name.ljust(name_width)
    if not device.cells:
        return name, device.words
    return (name, *device.cells, device.words) if models else (name, *device.cells)


def figure(value: int, by: int, unit: str) -> str:
    """A reading in whole units; "" where the driver does not say."""
    return "" if value == UNKNOWN else f"{value / by:.0f} {unit}"


def _memory(used_mib: int, total_mib: int) -> str:
    return "" if used_mib == UNKNOWN else f"{used_mib / 1024:.1f}/{total_mib / 1024:.0f} GiB"


def _hour(gpu: GpuNow, history: HistoryTold | None) -> str:
    if history is None:
        return ""
    since_us = history.now_us - HOUR_US
    values = over_time(history.spans, gpu.reading.uuid, "load_milli", since_us, history.now_us, SPARK_WIDTH)
    live = None if gpu.reading.load_milli == UNKNOWN else gpu.reading.load_milli
    return sparks([*values[:-1], live], FULL)


def who(users: Sequence[GpuUser], name: Callable[[str], str]) -> str:
    """ "bob: train", those whose inputs run first; "bob: train +2" for three."""
    if not users:
        return ""
    first = min(users, key=lambda each: each.state != "running")
    more = f" +{len(users) - 1}" if len(users) > 1 else ""
    return f"{name(first.caller)}: {plain(first.function)}{more}"


def day_graph(device: Device, history: HistoryTold, width: int) -> str:
    """The load of a GPU over the last day, in `width` characters."""
    since_us = history.now_us - DAY_US
    return sparks(over_time(history.spans, device.uuid, "load_milli", since_us, history.now_us, width), FULL)


def today(told: GpusTold | None) -> str:
    """What was given since midnight, as the ledger counts it: of GPUs if there was any, else of workers."""
    if told is None or not (told.today.given_us or told.today.gpu_us):
        return ""
    return (
        f"; today {duration(told.today.gpu_us)} of GPUs"
        if told.today.gpu_us
        else f"; today {duration(told.today.given_us)}"
    )
