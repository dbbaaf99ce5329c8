"""`potluck ledger`: what was given and used, verified on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from potluck.cli.connect import ask_status, client
from potluck.cli.ledger_audit import audit
from potluck.cli.ledger_report import report
from potluck.cli.quota import give, grant, grants, member, quota
from potluck.cli.show import as_json, named, print_json, print_table
from potluck.errors import LedgerError, NodeStartError
from potluck.wire import control

if TYPE_CHECKING:
    from potluck.client import Client
    from potluck_ledger.balance import Account
    from potluck_ledger.entries import Receipt
    from potluck_ledger.journal import Record, VerifiedEntry


@click.group()
def ledger() -> None:
    """Receipts: who gave what to whom."""


def own_journal() -> tuple[str, list[Record]]:
    """The owner and the whole journal of the local node."""
    owner, records, _ = _own_witnessed()
    return owner, records


def _own_witnessed() -> tuple[str, list[Record], bytes]:
    connection = client()
    try:
        return fetch_witnessed(connection)
    finally:
        connection.close()


def fetch_journal(connection: Client) -> tuple[str, list[Record]]:
    """The whole journal of the local node, and its owner."""
    owner, records, _ = fetch_witnessed(connection)
    return owner, records


def fetch_witnessed(connection: Client) -> tuple[str, list[Record], bytes]:
    """The same, and the last checkpoint that witnesses cosigned; b"" where there is none."""
    from potluck_ledger.journal import Record

    records: list[Record] = []
    while True:
        after = len(records)
        answer = connection.ask(lambda number, after=after: control.AskJournal(number, after), control.JournalAnswer)  # type: ignore[misc]
        records += [Record(*pair) for pair in answer.records]
        if not answer.more:
            return answer.owner, records, answer.witnessed


def checked(owner: str, records: list[Record]) -> list[VerifiedEntry]:
    """Raises `LedgerError` naming the entry that does not hold."""
    try:
        from potluck_ledger.journal import JournalError, verify
    except ImportError:
        raise NodeStartError("The ledger is not installed.", fix="pip install 'potluck[node]'") from None
    try:
        return verify(owner, records)
    except JournalError as error:
        raise LedgerError("The journal does not verify.", why=str(error), fix="Restore it from a backup.") from None


def _seconds(us: int) -> str:
    return f"{us / 1e6:.3f} s"


def _joules(mj: int) -> str:
    return f"{mj / 1000:.1f} J" if mj else ""


def own_receipts() -> tuple[str, list[tuple[Receipt, bool]]]:
    """The node's id, and its verified receipts, each with whether both signed it."""
    owner, records = own_journal()
    entries = checked(owner, records)
    return owner, [(entry.receipt, entry.countersigned) for entry in entries if entry.receipt]


@ledger.command("list")
@as_json
def list_entries(as_json: bool) -> None:
    """Every receipt, and what else the journal has, oldest first."""
    owner, records = own_journal()
    entries = checked(owner, records)
    if as_json:
        print_json([_facts(entry) for entry in entries])
        return
    columns = ("#", "when", "", "peer", "function", "inputs", "leased", "busy", "energy", "GPU", "signed")
    print_table(columns, [_row(owner, entry) for entry in entries], "No receipts.")


def _facts(entry: VerifiedEntry) -> dict[str, object]:
    facts = {"sequence": entry.sequence, "kind": kind(entry), "countersigned": entry.countersigned}
    return {**facts, **named(entry.content)}


def kind(entry: VerifiedEntry) -> str:
    """What it records, in a word."""
    return type(entry.content).__name__.lower()


def _row(owner: str, entry: VerifiedEntry) -> tuple[str, ...]:
    receipt = entry.receipt
    if receipt is None:
        parties = {getattr(entry.content, name) for name in type(entry.content).PEERS} - {owner}
        other = ", ".join(sorted(peer[-8:] for peer in parties))
        return str(entry.sequence), _when(entry.at_us), kind(entry), other, *[""] * 7
    gave = receipt.provider == owner
    other = receipt.caller if gave else receipt.provider
    return (
        str(entry.sequence), _when(receipt.ended_us), "gave" if gave else "used", other[-8:], receipt.label,
        str(receipt.inputs), _seconds(receipt.lease_us), _seconds(receipt.busy_us), _joules(receipt.energy_mj),
        receipt.gpu_model, "both" if entry.countersigned else "one side",
    )  # fmt: skip


def _when(at_us: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(at_us / 1e6).strftime("%m-%d %H:%M")


@ledger.command("balance")
@as_json
def balance(as_json: bool) -> None:
    """Time given to and used from each peer."""
    owner, records = own_journal()
    accounts = _accounts(owner, records)
    if as_json:
        print_json([{**vars(account), "balance_us": account.balance_us} for account in accounts])
        return
    rows = [
        (each.peer[-8:], _seconds(each.given_us), _seconds(each.used_us), _seconds(each.balance_us))
        for each in accounts
    ]
    print_table(("peer", "given", "used", "balance"), rows, "No receipts.")


def _accounts(owner: str, records: list[Record]) -> list[Account]:
    entries = checked(owner, records)
    from potluck_ledger.balance import Accounts

    accounts = Accounts(owner)
    for entry in entries:
        accounts.record(entry.envelope, entry.content)
    return list(accounts.by_peer.values())


@ledger.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export(file: Path) -> None:
    """Write the journal to FILE, for others to verify."""
    from potluck_ledger.exported import export_lines

    owner, records, witnessed = _own_witnessed()
    file.write_text("".join(f"{line}\n" for line in export_lines(owner, records, witnessed)))
    click.echo(f"{len(records)} entries of {owner} written to {file}.")


@ledger.command("verify")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify_journals(files: tuple[Path, ...]) -> None:
    """Verify this node's journal, or exported ones, and that each two of them agree."""
    from potluck_ledger.exported import compare

    journals = [_imported(file) for file in files] if files else [_own_witnessed()]
    verified = [(owner, checked(owner, records)) for owner, records, _ in journals]
    for (owner, entries), (_, records, witnessed) in zip(verified, journals, strict=True):
        both = sum(entry.countersigned for entry in entries)
        click.echo(f"{owner}: {len(entries)} entries, chain and signatures hold, {both} signed by both sides")
        if witnessed:
            click.echo(_told_by_witnesses(owner, records, witnessed))
    problems = [
        text for number, one in enumerate(verified) for other in verified[number + 1 :] for text in compare(one, other)
    ]
    if problems:
        raise LedgerError("The journals do not agree.", why="\n    ".join(problems))
    if len(verified) > 1:
        click.echo(f"All {len(verified)} journals agree.")


def _imported(file: Path) -> tuple[str, list[Record], bytes]:
    from potluck_ledger.exported import import_lines, import_witnessed

    lines = file.read_text().splitlines()
    return (*import_lines(lines), import_witnessed(lines))


def _told_by_witnesses(owner: str, records: list[Record], witnessed: bytes) -> str:
    """Raises `LedgerError`."""
    from potluck_ledger.exported import check_witnessed
    from potluck_ledger.journal import JournalError

    try:
        number, witnesses = check_witnessed(owner, witnessed, [record.entry for record in records])
    except JournalError as error:
        fix = "Ask its witnesses which head they cosigned."
        raise LedgerError("The journal is not what was cosigned.", why=str(error), fix=fix) from None
    return f"  cosigned up to entry {number} by {', '.join(witnesses)}"


def claimed_speeds() -> dict[str, dict[str, int]]:
    """What this node and the peers that are up say of their speed, by GPU model."""
    status = ask_status()
    scores = {status.peer: status.scores, **{each.peer: each.scores for each in status.peers}}
    return {peer: {score.gpu_model: score.compute for score in each} for peer, each in scores.items()}


for command in (audit, report, grant, member, give, grants, quota):
    ledger.add_command(command)
