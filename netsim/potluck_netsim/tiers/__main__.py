"""`python -m potluck_netsim.tiers small`: run a plan in the simulator and by the node's own code, and compare.

With real processes as the third tier: `python benchmarks/tiers.py`, which needs root.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from potluck.errors import InvalidError
from potluck_netsim.tiers import joined, simulated
from potluck_netsim.tiers.outcome import CLOSE, disagreements, table
from potluck_netsim.tiers.plan import PLANS, Plan, read


def plan_named(name: str) -> Plan:
    """One that comes with this, or a file. Raises `InvalidError`."""
    ours = PLANS / f"{name}.toml"
    return read(ours if ours.exists() else Path(name))


@click.command()
@click.argument("plan")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulator.")
@click.option("--lenders", type=click.IntRange(min=1), help="At least so many: further ones that nothing befalls.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def main(plan: str, seed: int, lenders: int | None, as_json: bool) -> None:
    """Run PLAN, a name such as "small" or a file; ends with 1 when the tiers do not agree."""
    try:
        read_plan = plan_named(plan)
    except InvalidError as error:
        raise click.ClickException(str(error)) from None
    if lenders:
        read_plan = read_plan.widened(lenders)
    one, other = simulated.run(read_plan, seed), joined.run(read_plan)
    outcomes, apart = [one, other], list(disagreements(read_plan, one, other, CLOSE))
    if as_json:
        click.echo(msgspec.json.encode({"outcomes": outcomes, "apart": apart}).decode())
    else:
        click.echo("\n".join([table(outcomes), *(f"apart: {each}" for each in apart)]))
    sys.exit(bool(apart))


if __name__ == "__main__":
    main()
