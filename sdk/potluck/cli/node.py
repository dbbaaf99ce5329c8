"""`potluck up|down|status|pause|resume|tui|config`: the node on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from potluck import paths, start
from potluck.cli import first_run, service
from potluck.cli.bench import claims, speed
from potluck.cli.calls import done, print_calls
from potluck.cli.connect import ask_status, client
from potluck.cli.options import duration_us
from potluck.cli.show import as_json, named, print_json, table
from potluck.errors import ConnectionError, Error, NodeStartError
from potluck.tiers import TIERS
from potluck.wire import control

if TYPE_CHECKING:
    from rich.table import Table


# A node gives its leases six seconds to close; the rest is for slow machines.
STOP_TIMEOUT_S = 20


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Data folder of this node; also POTLUCK_HOME.")
@click.option("--name", help="The name others see.")
@click.option("--mesh", help="Nodes of one mesh see each other.")
@click.option("--offer/--no-offer", default=None, help="Whether to run other people's functions.")
@click.option("--cpus", type=float, help="Cores to lend.")
@click.option("--memory-mib", type=int, help="Memory to lend, in MiB.")
@click.option("--gpus", help="GPUs to lend: all, none, or their numbers or uuids with commas between.")
@click.option("--gpu-share/--no-gpu-share", default=None, help="Whether parts of a GPU are lent.")
@click.option("--listen", multiple=True, help="Address to listen on, as a multiaddr.")
@click.option("--bootstrap", multiple=True, help="Address of a node to join.")
@click.option("--mdns/--no-mdns", default=None, help="Find nodes on the local network.")
@click.option("--lane/--no-lane", default=None, help="Whether leases and images get TLS connections of their own.")
@click.option("--build-for-others/--no-build-for-others", default=None, help="Whether peers may build images here.")
@click.option("--network", help="Where functions may connect to: none, public, or names with commas between.")
@click.option("--idle-s", type=float, help="Seconds that an unused worker stays warm.")
@click.option("--zygote-mib", type=int, help="Memory for imports that are kept while nobody calls, in MiB.")
@click.option("--store-gib", type=float, help="Upper bound of the image store.")
@click.option("--upload-mib-s", type=float, help="Cap on serving images, MiB a second.")
@click.option("--download-mib-s", type=float, help="Cap on fetching images, MiB a second.")
@click.option("--ledger-admins", multiple=True, help="Peer id whose grants of GPU time count here.")
@click.option("--quota-deficit-s", type=float, help="Seconds that somebody may use beyond their quota.")
@click.option("--sandbox", type=click.Choice(TIERS), help="The weakest sandbox that may run here.")
@click.option(
    "--lazy", type=click.Choice(("auto", "always", "never")), help="Whether images are fetched as they are read."
)
@click.option("--foreground", is_flag=True, help="Stay in this terminal.")
@click.option("--service", "as_service", is_flag=True, help="Let systemd run it, now and after each boot or login.")
def up(home: Path | None, foreground: bool, as_service: bool, **flags: object) -> None:
    """Start the node on this machine."""
    if home:
        os.environ["POTLUCK_HOME"] = str(home.absolute())
    arguments = _as_arguments(flags)
    if foreground:
        require_node()
        os.execv(sys.executable, [sys.executable, "-m", "potluck_node.main", *arguments])
    running = _running()
    if running and running.embedded:
        # Started by some program for itself alone; whoever says "up" wants a real one.
        _stop()
    elif running:
        click.echo(f"{running.name} is running already; see `potluck status`.")
        return
    if first_run.is_wanted(flags):
        require_node()
        first_run.run()
    if as_service:
        require_node()
        click.echo(f"systemd runs the node from now on ({service.install(arguments)}). See `potluck status`.")
        return
    start.launch(arguments)
    status = ask_status()
    click.echo(f"{status.name} is up ({status.peer}).")
    if status.warning:
        click.secho(status.warning, fg="yellow", err=True)
    if status.mesh_id:
        click.echo(f"It is on the private mesh {status.mesh}; others join with a token: potluck mesh invite")
        return
    for address in status.addresses:
        click.echo(f"Others join with: potluck up --bootstrap {address}")


def _as_arguments(flags: dict[str, object]) -> list[str]:
    arguments: list[str] = []
    for name, value in flags.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, tuple):
            for each in value:
                arguments += (f"--{option}", str(each))
        elif value is not None:
            arguments += (f"--{option}", str(value))
    return arguments


def require_node() -> None:
    import importlib.util

    if importlib.util.find_spec("potluck_node") is None:
        raise NodeStartError("The node is not installed.", fix="pip install 'potluck[node]'")


def _running() -> control.Status | None:
    try:
        return ask_status()
    except ConnectionError:
        return None


@click.command()
@click.option("--service", "as_service", is_flag=True, help="Have systemd stop it, and start it no more.")
def down(as_service: bool) -> None:
    """Stop the node on this machine."""
    if as_service:
        click.echo(f"{service.remove()} is gone, and the node has stopped.")
        return
    _stop()
    click.echo("The node has stopped.")


def _stop() -> None:
    connection = client()
    pid = connection.welcome.pid
    connection.ask(control.StopNode, control.Done)
    connection.close()
    if not _await_end(pid):
        raise Error(
            f"The node has not stopped within {STOP_TIMEOUT_S} s.",
            why=f"process {pid} still runs",
            fix=f"See its log in {paths.home()}, or end it with: kill -9 {pid}",
        )


def _await_end(pid: int) -> bool:
    """Whether the process is gone in time: leases are being closed and receipts signed."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    import select

    try:
        return bool(select.select([descriptor], [], [], STOP_TIMEOUT_S)[0])
    finally:
        os.close(descriptor)


@click.command()
@click.option("--calls", "only_calls", is_flag=True, help="Only your open calls, and why each peer runs them or not.")
@as_json
def status(only_calls: bool, as_json: bool) -> None:
    """What the node does: workers, calls, peers, balance."""
    answer = ask_status()
    if as_json:
        print_json([named(call) for call in answer.calls] if only_calls else named(answer))
        return
    if only_calls:
        print_calls(answer.calls)
        return
    from rich.console import Console

    console = Console()
    for part in _tables(answer):
        console.print(part)


def _tables(answer: control.Status) -> list[str | Table]:
    lends = f"lends {answer.cpu_milli / 1000:g} CPUs, {answer.memory_mib} MiB" if answer.offering else "only calls"
    state = f"paused: {answer.paused}" if answer.paused else lends
    parts: list[str | Table] = [
        f"[bold]{answer.name}[/bold] on mesh {answer.mesh}: {state}",
        f"peer {answer.peer}",
        *answer.addresses,
        f"{answer.images} image{'s' * (answer.images != 1)}, {answer.store_bytes / (1 << 30):.1f} GiB in the store",
        *([f"[yellow]{answer.warning}[/yellow]"] if answer.warning else []),
    ]
    parts += _table("Measured", ("", "speed"), [(each.gpu_model or "CPU", speed(each)) for each in answer.scores])
    gpus = [(g.model, f"{g.memory_free_mib} of {g.memory_mib} MiB free", g.state, g.uuid) for g in answer.gpus]
    parts += _table("GPUs", ("model", "memory", "state", "uuid"), gpus)
    rows = [(w.worker, w.function, w.state) for w in answer.workers]
    parts += _table("Workers", ("worker", "function", "state"), rows)
    calls = [(c.function, done(c), c.note) for c in answer.calls]
    parts += _table("Calls", ("function", "done", "waits for"), calls)
    peers = [
        (
            p.name,
            p.state,
            f"{p.cpu_milli / 1000:g} CPUs, {p.memory_mib} MiB",
            ", ".join(p.gpus),
            claims(p.scores),
            p.note,
        )
        for p in answer.peers
    ]
    parts += _table("Peers", ("name", "state", "lends", "GPUs", "says of its speed", ""), peers)
    return parts


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str | Table]:
    return [table(columns, rows, title)] if rows else []


@click.command()
@click.argument("how_long", required=False, metavar="[2h]")
@click.option("--now", is_flag=True, help="Also end what is running.")
@click.option("--reason", default="paused by the owner", help="Shown to callers.")
def pause(how_long: str | None, now: bool, reason: str) -> None:
    """Take no new work for a while (90s, 30m, 2h, 1d), or until `potluck resume`."""
    seconds = duration_us(how_long) / 1e6 if how_long else 0.0
    connection = client()
    connection.ask(lambda number: control.Pause(number, reason, now, seconds), control.Done)
    connection.close()
    click.echo(f"Paused for {how_long}." if how_long else "Paused.")


@click.command()
def resume() -> None:
    """Take work again."""
    connection = client()
    connection.ask(control.Resume, control.Done)
    connection.close()
    click.echo("Resumed.")


@click.group()
def config() -> None:
    """The node's settings."""


@config.command("show")
def config_show() -> None:
    """Every setting with its value and what it means."""
    require_node()
    os.execv(sys.executable, [sys.executable, "-m", "potluck_node.main", "--show-config"])


@config.command("path")
def config_path() -> None:
    """Where the settings are kept."""
    click.echo(paths.home() / "config.toml")
