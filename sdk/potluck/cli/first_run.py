"""The questions that `potluck up` asks in a terminal when a machine has no settings yet."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

from potluck import paths

# Of the disk's free room, and at most: a default that nobody regrets.
DISK_SHARE, DISK_GIB_MAX, DISK_GIB_MIN = 5, 50, 5
TOKEN, ADDRESS = re.compile(r"potluck1-\S+"), re.compile(r"/\S+/p2p/\S+")
LEND = {"all": "GPUs and processors", "gpus": "GPUs, and the processor that they need", "cpus": "processors alone",
        "nothing": "nothing: only call others"}  # fmt: skip
WHEN = {"idle": "while nobody uses the machine", "nights": "at night, while nobody uses it", "always": "always"}


class Answers(NamedTuple):
    """`mesh` is a token, an address, "new NAME", or "" for none."""

    mesh: str
    lend: str
    when: str
    disk_gib: int
    name: str


def is_wanted(flags: dict[str, object]) -> bool:
    """Whether somebody is there to answer, and nothing was said yet."""
    has_flags = any(value not in (None, (), False) for value in flags.values())
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return is_terminal and not has_flags and not (paths.home() / "config.toml").exists()


def ask() -> Answers:
    """Five questions, each with a default that Enter takes."""
    click.echo("This machine is new to Potluck. Five questions; Enter takes what is in brackets.\n")
    mesh = _asked("1. A mesh to join: its token, a node's address, or “new NAME” to found one", "none", _mesh)
    lend = _chosen("2. What to lend", LEND, "all")
    when = _chosen("3. When", WHEN, "idle") if lend != "nothing" else "always"
    disk = _asked("4. How much disk for images, in GiB", str(default_disk_gib()), _disk)
    name = _asked("5. A name that others see", default_name(), _name)
    return Answers("" if mesh == "none" else mesh, lend, when, int(disk), name)


def settings_text(answers: Answers) -> str:
    """The config.toml of these answers."""
    lines = [
        "# Written by `potluck up`; `potluck config show` explains every setting.",
        f"name = {json.dumps(answers.name)}",
        f"store_gib = {answers.disk_gib}",
        *_LENT[answers.lend],
    ]
    if ADDRESS.fullmatch(answers.mesh):
        lines.append(f"bootstrap = [{json.dumps(answers.mesh)}]")
    if answers.mesh:
        # Others are to reach it.
        lines.append('listen = ["/ip4/0.0.0.0/tcp/0"]')
    if answers.lend != "nothing":
        lines += ["", "# When it lends: `potluck policy explain`.", "[policy]", f'preset = "{answers.when}"']
    return "\n".join(lines) + "\n"


_LENT = {"all": (), "gpus": ("cpus = 1",), "cpus": ('gpus = "none"',), "nothing": ("offer = false",)}


def run() -> None:
    """Ask, join or found the mesh, and write the settings. Raises `potluck.errors.Error`."""
    from potluck.cli.mesh import set_up

    answers = ask()
    words, _, founded = answers.mesh.partition(" ")
    if TOKEN.fullmatch(answers.mesh):
        done = set_up("join", answers.name, stdin=answers.mesh)
        click.echo(f"This node is a member of {done.name} now: {', '.join(done.roles)}.")
    elif words == "new":
        done = set_up("create", founded, answers.name)
        click.echo(f"{done.name} is founded. Others join with a token: potluck mesh invite")
    file = paths.home() / "config.toml"
    _write(file, settings_text(answers))
    click.echo(f"Settings are in {file}.\n")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def default_disk_gib() -> int:
    """A fifth of what is free where images go, within bounds."""
    folder = paths.home()
    while not folder.exists():
        folder = folder.parent
    free_gib = shutil.disk_usage(folder).free >> 30
    return max(DISK_GIB_MIN, min(DISK_GIB_MAX, free_gib // DISK_SHARE))


def default_name() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:32] or f"node-{os.getpid()}"


def _chosen(question: str, choices: dict[str, str], default: str) -> str:
    click.echo(f"{question}:")
    for word, meaning in choices.items():
        click.echo(f"     {word:8} {meaning}")
    return str(click.prompt("  ", default=default, type=click.Choice(tuple(choices)), show_choices=False))


def _asked(question: str, default: str, check: Callable[[str], str]) -> str:
    return click.prompt(question, default=default, value_proc=check)


def _mesh(text: str) -> str:
    text = text.strip()
    if text in ("", "none") or TOKEN.fullmatch(text) or ADDRESS.fullmatch(text) or re.fullmatch(r"new \S{1,32}", text):
        return text or "none"
    raise click.BadParameter("give a token (potluck1-…), an address (/ip4/…/p2p/…), “new NAME”, or nothing")


def _disk(text: str) -> str:
    if not text.strip().isdecimal() or not int(text):
        raise click.BadParameter("give a whole number of GiB")
    return text.strip()


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", text.strip()):
        raise click.BadParameter("use up to 32 letters, digits, '-', '_' and '.'")
    return text.strip()
