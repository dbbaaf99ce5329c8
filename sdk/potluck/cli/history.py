"""`potluck history`: what this machine's GPUs do now, and did lately."""

from __future__ import annotations

import click

from potluck.cli.connect import ask_status, client
from potluck.cli.options import duration_us
from potluck.cli.show import as_json, named, print_json, print_table, printable
from potluck.sparks import over_time, sparks
from potluck.wire import history as messages
from potluck.wire.history import UNKNOWN, GpuNow, HistoryTold

# A line of 80 columns has room for it beside the figures.
WIDTH = 60


@click.command()
@click.option("--since", default="24h", show_default=True, help="How far back, as 90m, 24h or 7d.")
@as_json
def history(since: str, as_json: bool) -> None:
    """Each GPU that is lent: load, memory, temperature, watts, who uses it; and the same over time, a week at most."""
    length_us = duration_us(since)
    status = ask_status()
    names = {peer.peer: peer.name for peer in status.peers} | {status.peer: "you"}
    connection = client()
    try:
        now = connection.ask(messages.AskGpus, messages.GpusTold)
        since_us, step_s = now.now_us - length_us, 60 if as_json else max(60, length_us // 1_000_000 // WIDTH)
        told = connection.ask(lambda number: messages.AskMachineHistory(number, since_us, step_s), messages.HistoryTold)
    finally:
        connection.close()
    if as_json:
        spans = [named(span) for span in told.spans]
        print_json({"gpus": [named(gpu) for gpu in now.gpus], "today": named(now.today), "spans": spans})
        return
    rows = [_now(number, gpu, names) for number, gpu in enumerate(now.gpus)]
    print_table(("", "model", "load", "memory", "", "", "state", "for"), rows, "No GPU is lent here.")
    for number, gpu in enumerate(now.gpus):
        _print_graphs(f"GPU {number}", gpu, told, since_us)
    click.echo(
        f"Given since midnight (UTC): {_seconds(now.today.gpu_us)} of GPUs, {_seconds(now.today.given_us)} of workers, "
        f"{now.today.inputs} inputs."
    )


def _now(number: int, gpu: GpuNow, names: dict[str, str]) -> tuple[str, ...]:
    reading = gpu.reading
    users = ", ".join(f"{names.get(each.caller, each.caller[-8:])}: {each.function}" for each in gpu.users)
    memory = f"{reading.memory_mib} of {gpu.memory_mib} MiB" if reading.memory_mib != UNKNOWN else ""
    return (
        f"GPU {number}", gpu.model, _figure(reading.load_milli, 10, "%"), memory,
        _figure(reading.temperature_c, 1, "°C"), _figure(reading.power_mw, 1000, "W"), gpu.state, users,
    )  # fmt: skip


def _figure(value: int, by: int, unit: str) -> str:
    return "" if value == UNKNOWN else f"{value / by:.0f} {unit}"


def _print_graphs(name: str, gpu: GpuNow, told: HistoryTold, since_us: int) -> None:
    for figure, word in (("load_milli", "load"), ("lent_milli", "lent")):
        values = over_time(told.spans, gpu.reading.uuid, figure, since_us, told.now_us, WIDTH)
        known = [value for value in values if value is not None]
        average = f"{sum(known) / len(known) / 10:.0f} %" if known else "not seen"
        click.echo(f"{printable(name)} {word} │{sparks(values, 1000)}│ {average}")


def _seconds(us: int) -> str:
    return f"{us / 1e6:.1f} s"
