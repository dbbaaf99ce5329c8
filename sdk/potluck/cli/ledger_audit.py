"""`potluck ledger audit`: journals of a mesh, or exported ones, looked at together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from potluck.cli.ledger_crawl import Crawl, known, spread
from potluck.cli.quota import peer_id
from potluck.cli.show import as_json, print_json, print_table
from potluck.errors import NotFoundError

if TYPE_CHECKING:
    from potluck_ledger.audit import Finding
    from potluck_ledger.crawl import Shown


@click.command("audit")
@click.argument("who", nargs=-1, metavar="[PEER|FILE]…")
@click.option("--mesh", is_flag=True, help="Every peer that this node knows to be up, or has heard a journal of.")
@as_json
def audit(who: tuple[str, ...], mesh: bool, as_json: bool) -> None:
    """Look at this node's journal and others together, those of peers, by name or id, or exported ones.

    Says who keeps two journals, where two disagree, who bills more than others for the same, who works for whom alone,
    which disputes nobody answered, and whose receipts do not fit what they say of their speed. Peers show their whole
    journals where they name admins (`ledger_admins`), and to those who have a mesh's admin certificate; to others what
    is about them. A fork that is found is told to all.
    """
    began_us = int(time.time() * 1e6)
    files = [Path(each) for each in who if Path(each).is_file()]
    peers = [_named(each) for each in who if not Path(each).is_file()]
    told = known()
    shown = _ours_and_exported(files)
    heads, here = dict(told.peers), {each.owner for each in shown}
    wanted = [peer for peer in dict.fromkeys([*peers, *(heads if mesh else ())]) if peer not in here]
    shown += Crawl(heads).run(wanted)
    spread([each.proof for each in shown if each.proof])
    findings = _findings(shown, began_us if peers or mesh else None) + _proved(told.proofs)
    more = f"{told.left_out} more peers are known and were not asked; name them" if mesh and told.left_out else ""
    if as_json:
        proofs = [*told.proofs, *(each.proof for each in shown if each.proof)]
        print_json(_facts(shown, findings, proofs) | ({"more": more} if more else {}))
        return
    rows = [(each.owner, str(len(each.entries)), _state(each)) for each in shown]
    print_table(("journal", "entries", ""), rows, "")
    if more:
        click.echo(more)
    count = sum(not each.problem for each in shown)
    print_table(("kind", "what"), findings, f"Nothing to say of {count} journals, which verify.")


def _state(shown: Shown) -> str:
    if shown.problem or not (shown.entries or shown.hidden):
        return shown.problem or "shows no entries"
    more = f"; {shown.hidden} entries more are between others" if shown.hidden else ""
    return f"chain and signatures hold{more}"


def _named(who: str) -> str:
    """Raises `NotFoundError`, `InvalidError`."""
    try:
        return peer_id(who)
    except NotFoundError:
        fix = "Give its peer id: see `potluck status`."
        raise NotFoundError(f"No node named {who} is up, and there is no such file.", fix=fix) from None


def _ours_and_exported(files: Sequence[Path]) -> list[Shown]:
    """Raises `LedgerError` for one that does not verify."""
    from potluck.cli.ledger import checked, own_journal
    from potluck_ledger.crawl import Shown
    from potluck_ledger.exported import import_lines

    journals = dict([own_journal(), *(import_lines(file.read_text().splitlines()) for file in files)])
    return [Shown(owner, checked(owner, records)) for owner, records in journals.items()]


def _findings(shown: Sequence[Shown], began_us: int | None) -> list[Finding]:
    from potluck.cli.ledger import claimed_speeds
    from potluck_ledger.audit import agreed, audit
    from potluck_ledger.claims import misfits
    from potluck_ledger.crawl import settled

    found = [finding for each in shown for finding in each.findings]
    whole = {each.owner: each.entries for each in shown if not each.problem}
    if began_us is not None:
        whole = {owner: settled(entries, began_us) for owner, entries in whole.items()}
    journals = list(whole.items())
    # What comes first is our own.
    parts = {each.owner: shown[0].owner for each in shown if each.hidden}
    return [*found, *audit(journals, parts), *misfits(claimed_speeds(), list(agreed(journals)))]


def _proved(proofs: Sequence[bytes]) -> list[Finding]:
    from potluck_ledger.audit import Finding
    from potluck_ledger.forks import tell

    return [Finding("fork", tell(proof)) for proof in proofs]


def _facts(shown: Sequence[Shown], findings: Sequence[Finding], proofs: Sequence[bytes]) -> dict[str, object]:
    from potluck_ledger.forks import read_both

    both = [read_both(proof) for proof in proofs]
    return {
        "journals": [
            {
                "owner": each.owner,
                "entries": len(each.entries),
                "hidden": each.hidden,
                "verified": not each.problem,
                "problem": each.problem,
            }
            for each in shown
        ],
        "findings": [finding._asdict() for finding in findings],
        "proofs": [{"owner": owner, "one": fork.one.hex(), "other": fork.other.hex()} for owner, fork in both],
    }
