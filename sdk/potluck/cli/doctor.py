"""`potluck doctor`: what this machine can do for the mesh, and what would make it better."""

from __future__ import annotations

import subprocess
import sys

import click
import msgspec

from potluck.cli import reach
from potluck.cli.node import require_node
from potluck.errors import ExecutionError
from potluck.wire.doctor import Finding

# Trying sandboxes takes about a second; a hung GPU driver is given up on after ten.
TIMEOUT_S = 60

_MARKS = {"good": ("✓", "green"), "weak": ("!", "yellow"), "missing": ("✗", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(as_json: bool) -> None:
    """Look at this machine and say what would improve it; ends with status 1 when it can run no functions.

    While a node runs, peers say how they see it, and at most 4 MiB are sent to one of them to measure the way out.
    """
    findings = _look()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        for finding in findings:
            _show(finding)
    raise SystemExit(any(finding.state == "missing" and finding.about == "sandbox bwrap" for finding in findings))


def _look() -> list[Finding]:
    require_node()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "potluck_node.doctor"], capture_output=True, timeout=TIMEOUT_S, check=True
        )
        return [*msgspec.json.decode(done.stdout, type=list[Finding]), *reach.look()]
    except subprocess.TimeoutExpired:
        raise ExecutionError(f"The machine could not be looked at within {TIMEOUT_S} s.") from None
    except (subprocess.CalledProcessError, msgspec.DecodeError) as error:
        said = error.stderr.decode(errors="replace").strip() if isinstance(error, subprocess.CalledProcessError) else ""
        raise ExecutionError("The machine could not be looked at.", why=said or str(error)) from None


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    click.secho(f"{mark} {finding.about:<15}", fg=colour, nl=False)
    click.echo(f" {finding.says}")
    if finding.means:
        click.echo(f"  {'':<15} {finding.means}")
    if finding.fix:
        click.echo(f"  {'':<15} → {finding.fix}")
