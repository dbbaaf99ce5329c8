"""`potluck ledger`: what was given and used, verified on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from potluck.cli.connect import client
from potluck.errors import LedgerError, NodeStartError
from potluck.wire import control

if TYPE_CHECKING:
    from potluck_ledger.journal import VerifiedEntry


@click.group()
def ledger() -> None:
    """Receipts: who gave what to whom."""


def _own() -> tuple[str, tuple[bytes, ...]]:
    connection = client()
    try:
        answer = connection.ask(control.AskJournal, control.JournalAnswer)
    finally:
        connection.close()
    return answer.owner, answer.envelopes


def _verified(owner: str, envelopes: list[bytes] | tuple[bytes, ...]) -> list[VerifiedEntry]:
    """Raises `LedgerError` naming the entry that does not hold."""
    try:
        from potluck_ledger.journal import JournalError, verify
    except ImportError:
        raise NodeStartError("The ledger is not installed.", fix="pip install 'potluck[node]'") from None
    try:
        return verify(owner, envelopes)
    except JournalError as error:
        raise LedgerError("The journal does not verify.", why=str(error), fix="Restore it from a backup.") from None


def _seconds(us: int) -> str:
    return f"{us / 1e6:.3f} s"


def _joules(mj: int) -> str:
    return f"{mj / 1000:.1f} J" if mj else ""


@ledger.command("list")
def list_entries() -> None:
    """Every receipt, oldest first."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    owner, envelopes = _own()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("#", "when", "", "peer", "function", "inputs", "leased", "busy", "energy", "GPU", "signed"):
        table.add_column(column)
    for entry in _verified(owner, envelopes):
        receipt = entry.receipt
        gave = receipt.provider == owner
        other = receipt.caller if gave else receipt.provider
        signed = "both" if entry.countersigned else "one side"
        table.add_row(
            str(entry.sequence), _when(receipt.ended_us), "gave" if gave else "used", other[-8:], receipt.label,
            str(receipt.inputs), _seconds(receipt.lease_us), _seconds(receipt.busy_us), _joules(receipt.energy_mj),
            "".join(letter for letter in receipt.gpu_model if letter.isprintable()), signed,
        )  # fmt: skip
    Console().print(table)


def _when(at_us: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(at_us / 1e6).strftime("%m-%d %H:%M")


@ledger.command("balance")
def balance() -> None:
    """Time given to and used from each peer."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from potluck_ledger.balance import Accounts

    owner, envelopes = _own()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("peer", "given", "used", "balance"):
        table.add_column(column)
    receipts = [entry.receipt for entry in _verified(owner, envelopes)]
    for account in Accounts(owner, receipts).by_peer.values():
        table.add_row(
            account.peer[-8:], _seconds(account.given_us), _seconds(account.used_us), _seconds(account.balance_us)
        )
    Console().print(table)


@ledger.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export(file: Path) -> None:
    """Write the journal to FILE, for others to verify."""
    from potluck_ledger.journal import export_lines

    owner, envelopes = _own()
    file.write_text("".join(f"{line}\n" for line in export_lines(owner, envelopes)))
    click.echo(f"{len(envelopes)} entries of {owner} written to {file}.")


@ledger.command("verify")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify_journals(files: tuple[Path, ...]) -> None:
    """Verify this node's journal, or exported ones, and that each two of them agree."""
    from potluck_ledger.journal import compare, import_lines

    journals = [import_lines(file.read_text().splitlines()) for file in files] if files else [_own()]
    verified = [(owner, _verified(owner, envelopes)) for owner, envelopes in journals]
    for owner, entries in verified:
        both = sum(entry.countersigned for entry in entries)
        click.echo(f"{owner}: {len(entries)} entries, chain and signatures hold, {both} signed by both sides")
    problems = [
        text for number, one in enumerate(verified) for other in verified[number + 1 :] for text in compare(one, other)
    ]
    if problems:
        raise LedgerError("The journals do not agree.", why="\n    ".join(problems))
    if len(verified) > 1:
        click.echo(f"All {len(verified)} journals agree.")
