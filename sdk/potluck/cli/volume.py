"""`potluck volume …`: volumes on the local node, their files and their versions."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from potluck.cli.show import ago, as_json, print_json, print_table
from potluck.errors import InvalidError

if TYPE_CHECKING:
    from potluck.volume import FileEntry, Volume


@click.group()
def volume() -> None:
    """Files that functions share and that outlive them: Volume.from_name("…")."""


def _named(name: str) -> Volume:
    from potluck.volume import Volume

    return Volume.from_name(name)


@volume.command("create")
@click.argument("name")
def create(name: str) -> None:
    """Make a volume."""
    from potluck.volume import Volume

    Volume.objects.create(name)
    click.echo(f'{name} is made. In a program: volumes={{"/data": potluck.Volume.from_name("{name}")}}')


@volume.command("list")
@as_json
def list_volumes(as_json: bool) -> None:
    """All volumes, and on how many other peers the newest version of each is."""
    from potluck.volume import Volume

    now_us, rows, facts = time.time_ns() // 1000, [], []
    for each in Volume.objects.list():
        copies, last = each.copies(), each.log(1)
        size = last[0].bytes if last else 0
        facts.append({"name": each.name, **copies._asdict(), "bytes": size, "at_us": last[0].at_us if last else 0})
        of = f"{copies.copies} of {copies.wanted} copies"
        rows.append((each.name or "", str(copies.version), _size(size), ago(last[0].at_us if last else 0, now_us), of))
    if as_json:
        print_json(facts)
        return
    print_table(("volume", "version", "size", "changed", "on other peers"), rows, "There are no volumes here.")


@volume.command("ls")
@click.argument("name")
@click.argument("path", default="/")
@click.option("--recursive", "-r", is_flag=True, help="Also what is in its folders.")
@as_json
def ls(name: str, path: str, recursive: bool, as_json: bool) -> None:
    """What is in a volume, or in a folder of it."""
    found = _named(name).listdir(path, recursive=recursive)
    if as_json:
        print_json([{**entry._asdict(), "type": entry.type.name.lower()} for entry in found])
        return
    rows = [(entry.path, entry.type.name.lower(), _size(entry.size) if entry.type == 1 else "") for entry in found]
    print_table(("path", "type", "size"), rows, "There is nothing in it.")


@volume.command("put")
@click.argument("name")
@click.argument("local", type=click.Path(exists=True, path_type=Path))
@click.argument("remote", default="/")
@click.option("--force", "-f", is_flag=True, help="Overwrite files that are there.")
def put(name: str, local: Path, remote: str, force: bool) -> None:
    """Put a file or folder into a volume; a REMOTE that ends in "/" is a folder to put it into."""
    target = f"{remote}{local.name}" if remote.endswith("/") else remote
    with _named(name).batch_upload(force=force) as batch:
        if local.is_dir():
            batch.put_directory(local, target)
        else:
            batch.put_file(local, target)
    click.echo(f"{local} is in {name} as {target.strip('/')}.")


@volume.command("get")
@click.argument("name")
@click.argument("remote")
@click.argument("local", default=".", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--force", is_flag=True, help="Overwrite files that are here.")
def get(name: str, remote: str, local: Path, force: bool) -> None:
    """Fetch a file, or a folder with all in it, from a volume; "-" writes it to standard output."""
    found, top = _named(name), remote.strip("/")
    entries = [entry for entry in found.listdir(remote, recursive=True) if entry.type == 1]
    if str(local) == "-":
        for entry in entries:
            found.read_file_into_fileobj(entry.path, sys.stdout.buffer)
        return
    for entry in entries:
        path = _place(entry, top, local)
        if path.exists() and not force:
            raise InvalidError(f"{path} is here already.", fix="Overwrite it with --force.")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            found.read_file_into_fileobj(entry.path, file)
        part.replace(path)
    click.echo(f"{len(entries)} files came.")


def _place(entry: FileEntry, top: str, local: Path) -> Path:
    """Where it goes here. Paths of volumes never climb (`manifest.check_path`)."""
    if entry.path == top:
        return local / top.rpartition("/")[2] if local.is_dir() else local
    inside = entry.path.removeprefix(top).strip("/")
    return local / top.rpartition("/")[2] / inside


@volume.command("rm")
@click.argument("name")
@click.argument("path")
@click.option("--recursive", "-r", is_flag=True, help="A folder with all in it.")
def rm(name: str, path: str, recursive: bool) -> None:
    """Remove a file or folder; the versions before keep it."""
    _named(name).remove_file(path, recursive=recursive)
    click.echo(f"{path} is removed from {name}.")


@volume.command("cp")
@click.argument("name")
@click.argument("paths", nargs=-1, required=True)
@click.option("--recursive", "-r", is_flag=True, help="Folders with all in them.")
def cp(name: str, paths: tuple[str, ...], recursive: bool) -> None:
    """Copy files within a volume: the last path is where to."""
    if len(paths) < 2:
        raise InvalidError("A copy needs a path to copy, and one to copy to.")
    _named(name).copy_files(list(paths[:-1]), paths[-1], recursive=recursive)
    click.echo(f"Copied to {paths[-1]} in {name}.")


@volume.command("rename")
@click.argument("old")
@click.argument("new")
def rename(old: str, new: str) -> None:
    """Give a volume another name."""
    from potluck.volume import Volume

    Volume.rename(old, new)
    click.echo(f"{old} is {new} now.")


@volume.command("log")
@click.argument("name")
@click.option("--limit", default=20, show_default=True, help="How many versions.")
@as_json
def log(name: str, limit: int, as_json: bool) -> None:
    """The versions of a volume, the newest first, and who committed them."""
    found = _named(name).log(limit)
    if as_json:
        print_json([version._asdict() for version in found])
        return
    now_us = time.time_ns() // 1000
    rows = [
        (
            str(each.version),
            ago(each.at_us, now_us),
            each.by,
            each.what,
            f"+{each.changed} -{each.removed}",
            _size(each.bytes),
        )
        for each in found
    ]
    print_table(("version", "ago", "by", "what", "entries", "size"), rows, "Nothing was ever put into it.")


@volume.command("restore")
@click.argument("name")
@click.argument("version", type=int)
@click.argument("path", default="")
def restore(name: str, version: int, path: str) -> None:
    """Make PATH, or everything, what it was in a version; that is a new version, so nothing is lost."""
    made = _named(name).restore(version, path)
    click.echo(f"{name} is at version {made}: {path or 'all'} as in version {version}.")


@volume.command("recover")
def recover() -> None:
    """Take back volumes that this node lost with its database, from the peers that keep copies of them. The node must
    have its old key; their histories begin anew."""
    from potluck import asking
    from potluck.volume import recover as take_back

    for name in (names := asking.drive(take_back())):
        click.echo(f"{name} is back.")
    if not names:
        click.echo("No peer that is up has a volume of this node that it does not know.")


@volume.command("delete")
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="Do not fail when there is none.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def delete(name: str, allow_missing: bool, yes: bool) -> None:
    """Delete a volume with all its versions."""
    from potluck.volume import Volume

    if not yes:
        click.confirm(f"Delete {name} with all its versions?", abort=True)
    Volume.objects.delete(name, allow_missing=allow_missing)
    click.echo(f"{name} is deleted.")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} B"
