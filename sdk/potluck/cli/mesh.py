"""`potluck mesh …` and `potluck join`: a private mesh, and who is on it."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import click
import msgspec

from potluck import paths
from potluck.asking import Steps, drive
from potluck.cli.connect import client
from potluck.cli.node import require_node
from potluck.cli.options import duration_us
from potluck.cli.show import ago, as_json, named, print_json, print_table
from potluck.client import Client
from potluck.errors import ConnectionError, ExecutionError, from_kind
from potluck.output import PlainOutput
from potluck.wire import doings
from potluck.wire import membership as messages

# Joining dials a few addresses, of which each is given up within 5 seconds.
TIMEOUT_S = 120.0
ROLES = ("provider", "caller", "admin")


_own_name = click.option("--name", "own_name", default="", help="How members see this node; else its own name.")


@click.group()
def mesh() -> None:
    """A mesh of your own: whoever has no certificate of it reaches none of its nodes."""


@mesh.command()
@click.argument("name")
@_own_name
def create(name: str, own_name: str) -> None:
    """Found a private mesh, of which this node is the first member and admin. The node must not run."""
    done = set_up("create", name, *filter(None, [own_name]))
    click.echo(f"{done.name} is founded: {done.mesh}")
    click.echo("Keep a copy of the folder `mesh` of this node's data: it holds the key of the mesh.")
    click.echo("Next: potluck up --listen /ip4/0.0.0.0/tcp/4001, then: potluck mesh invite")


@mesh.command()
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), help="What the new member may do; repeat it.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="For how many nodes.")
@click.option("--expires", default="1d", show_default=True, help="How long the token can be used: 30m, 12h, 7d.")
@click.option("--lasts", default="", help="How long the membership lasts: 30d. Nothing: until it is revoked.")
def invite(roles: tuple[str, ...], uses: int, expires: str, lasts: str) -> None:
    """Print a token, one line, with which others join. Without --role they may give and take, as providers and
    callers. This node counts the uses, and must run when somebody joins."""
    now_us = time.time_ns() // 1000
    lasts_us = duration_us(lasts) if lasts else 0
    request = messages.InviteMember(roles or ("provider", "caller"), uses, now_us + duration_us(expires), lasts_us)
    found: messages.Invited = drive(_asked(request))
    click.echo(found.token)


@mesh.command("members")
@as_json
def members(as_json: bool) -> None:
    """Who belongs to the mesh, as far as this node has met them."""
    found: messages.Members = drive(_asked(messages.AskMembers()))
    if as_json:
        print_json(named(found))
        return
    now_us = time.time_ns() // 1000
    click.echo(f"{found.name} ({found.mesh})")
    rows = [_row(each, now_us) for each in found.members]
    print_table(("name", "peer", "roles", "since", "until", "here"), rows, "Nobody was met yet.")
    if found.revoked:
        click.echo(f"{found.revoked} were revoked.")


@mesh.command()
@as_json
def status(as_json: bool) -> None:
    """Who does what on which machine, and who waits: of each node that tells this one."""
    connection = client()
    try:
        found = connection.ask(doings.AskMeshDoings, doings.MeshDoings)
    finally:
        connection.close()
    if as_json:
        print_json(named(found))
        return
    click.echo(f"{found.mesh}: {len(found.nodes)} nodes lend something")
    rows = [row for node in found.nodes for row in _doings_rows(node, found.names)]
    print_table(("machine", "state", "GPUs free", "CPUs free", "who", "what", "for"), rows, "")
    if found.left_out:
        click.echo(f"{found.left_out} more nodes are not shown.")


def _doings_rows(node: doings.NodeDoings, names: dict[str, str]) -> list[tuple[str, ...]]:
    """A line for the machine, with what runs and waits on it below each other."""
    told = node.doings
    queued = f", {told.queued} inputs wait" if told.queued else ""
    head = (
        node.name,
        (told.problem or told.state) + queued,
        f"{node.gpus_free}/{len(node.gpus)}" if node.gpus else "",
        f"{node.cpu_free_milli / 1000:g}/{node.cpu_milli / 1000:g}",
    )
    body = [
        (_called(each.caller, names), each.function + (f" ({each.gpus} GPU)" if each.gpus else ""), _span(each))
        for each in told.workers
    ]
    body += [(_called(each.caller, names), each.function, "waits for room") for each in told.waiting]
    lines = body or [("", "", "")]
    return [(*(head if number == 0 else ("",) * len(head)), *line) for number, line in enumerate(lines)]


def _called(peer: str, names: dict[str, str]) -> str:
    return names.get(peer, f"…{peer[-8:]}")


def _span(worker: doings.Running) -> str:
    return f"{worker.state}, {worker.age_us // 1_000_000} s"


@mesh.command("list")
@as_json
def list_(as_json: bool) -> None:
    """The nodes that you have on this machine: one for each mesh, and they know nothing of each other."""
    rows = [_node_row(on) for on in ("", *paths.further())]
    if as_json:
        print_json([dict(zip(("on", "mesh", "node", "peer"), row, strict=True)) for row in rows])
    else:
        print_table(("--on", "mesh", "node", "peer"), rows, "")


def _node_row(on: str) -> tuple[str, ...]:
    try:
        connection = Client(paths.socket_path(on=on), PlainOutput(), "cli")
    except ConnectionError:
        return on, "", "does not run", ""
    try:
        welcome = connection.welcome
        return on, welcome.mesh, welcome.name, welcome.peer
    finally:
        connection.close()


@mesh.command()
@click.argument("member")
@click.option("--why", default="", help="Shown to all members.")
def revoke(member: str, why: str) -> None:
    """End a membership, by name or peer id, on every node, for good; and those of all whom the member invited."""
    found: messages.MembersRevoked = drive(_asked(messages.RevokeMember(member, why)))
    for each in found.members:
        click.echo(f"{each.name} ({each.peer}) is no member any more.")


@mesh.command()
def leave() -> None:
    """Be on no private mesh any more; what was kept of it lies beside. The node must not run."""
    click.echo(f"This node has left {set_up('leave').name}.")


@click.command()
@click.argument("token", default="-")
@_own_name
def join(token: str, own_name: str) -> None:
    """Join a private mesh by its token; without one, it is read from standard input. The node must not run."""
    done = set_up("join", *filter(None, [own_name]), stdin=sys.stdin.read() if token == "-" else token)
    click.echo(f"This node is a member of {done.name} now: {', '.join(done.roles)}.")
    click.echo("Next: potluck up")


def _asked(request: messages.MeshRequest) -> Steps[Any]:
    return (yield request)


def _row(member: messages.MemberFacts, now_us: int) -> tuple[str, ...]:
    until = time.strftime("%Y-%m-%d", time.localtime(member.expires_us / 1e6)) if member.expires_us else ""
    here = "yes" if member.is_connected else "no"
    return member.name, member.peer, ", ".join(member.roles), ago(member.issued_us, now_us), until, here


def set_up(*words: str, stdin: str = "") -> messages.Done:
    """Change the membership of a node that does not run. Raises what the node would.

    A token goes to standard input: arguments can be seen by others.
    """
    require_node()
    command = [sys.executable, "-m", "potluck_node.mesh_setup", *words]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ExecutionError(f"This took more than {TIMEOUT_S:g} s.") from None
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=messages.Done)
        words_of = msgspec.json.decode(done.stdout, type=dict[str, str])
    except msgspec.DecodeError:
        raise ExecutionError("The membership could not be changed.", why=done.stderr.strip()[-2000:]) from None
    raise from_kind(words_of["kind"], words_of["what"], why=words_of["why"], fix=words_of["fix"])
