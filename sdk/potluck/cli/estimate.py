"""`potluck estimate FILE.py`: what a run is likely to use, by what earlier ones did."""

from __future__ import annotations

import click

from potluck.cli.find import find_app
from potluck.cli.options import written_for
from potluck.cli.show import as_json, print_json, print_table


@click.command()
@written_for
@click.argument("target", metavar="FILE.py[::APP]", type=click.Path())
@click.option("--inputs", type=click.IntRange(min=1), default=1, show_default=True, help="Inputs of each function.")
@as_json
def estimate(target: str, inputs: int, as_json: bool) -> None:
    """What each function of an app would use on peers, by the receipts of earlier runs: seconds, by GPU model.

    What ran on this machine itself leaves no receipts, and so tells nothing.
    """
    from potluck.cli.ledger import own_receipts
    from potluck_ledger.report import labelled, usual

    app = find_app(target)
    _, receipts = own_receipts()
    known = usual(receipts)
    rows = [
        {"function": name, "gpu": cost.gpu_model, "seen": cost.inputs, "input_us": cost.input_us, "inputs": inputs}
        for name in (*app.registered_functions, *app.registered_classes)
        for cost in known.get(labelled(app.name, name), ())
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("function", "GPU", "inputs seen", "each", f"{inputs} inputs")
    shown = [
        (
            str(row["function"]),
            str(row["gpu"]),
            str(row["seen"]),
            _seconds(int(str(row["input_us"]))),
            _seconds(int(str(row["input_us"])) * inputs),
        )
        for row in rows
    ]
    print_table(columns, shown, f"No function of {app.name} has run on a peer yet: there is nothing to go by.")


def _seconds(us: int) -> str:
    return f"{us / 1e6:.3f} s" if us < 60_000_000 else f"{us / 60e6:.1f} min"
