"""`potluck image …`: which images are on this node, what they take, and how they come and go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from potluck import start, wire
from potluck.cli.show import as_json, named, print_json, print_table
from potluck.client import Client
from potluck.errors import CorruptDataError, RefusedError
from potluck.output import make_output
from potluck.wire import control
from potluck.wire.pins import OWNER, PinImage

if TYPE_CHECKING:
    from potluck_images.keep_facts import Change, ImageFacts

# Digits of an image id that are shown; `potluck image` takes any unique beginning of four or more.
ID_DIGITS = 12

AnswerT = TypeVar("AnswerT", bound=wire.Message)


@click.group()
def image() -> None:
    """Images on this node. IMAGE is an id, the first digits of one, or a label."""


def _ask(make: Callable[[int], wire.Message], kind: type[AnswerT]) -> AnswerT:
    """The node's answer; what happens meanwhile is shown on a terminal."""
    output = make_output(None)
    connection = Client(start.path(), output, "cli")
    try:
        return connection.ask(make, kind)
    finally:
        connection.close()
        output.close()


@image.command("ls")
@as_json
def list_images(as_json: bool) -> None:
    """All images, the last used first, and what the store takes."""
    answer = _ask(control.AskImages, control.Images)
    if as_json:
        print_json({"images": [named(each) for each in answer.images], "store": named(answer.store)})
        return
    rows = [
        (each.image[:ID_DIGITS], each.label, size(each.size), size(each.own), _when(each.used_us), _state(each))
        for each in answer.images
    ]
    print_table(("image", "label", "size", "own", "last used", ""), rows, "No images.")
    store = answer.store
    taken = size(store.packs + store.trees)
    click.echo(f"{taken} of {size(store.cap)}: {size(store.packs)} in packs, {size(store.trees)} in laid-out images.")
    if store.packs > store.live:
        click.echo(f"{size(store.packs - store.live)} of the packs is no longer needed; see `potluck image prune`.")


def _state(facts: ImageFacts) -> str:
    pinned = "pinned" if OWNER in facts.pins else "kept" if facts.pins else ""
    return ", ".join(filter(None, ("in use" * facts.held, pinned, "damaged" * facts.damaged)))


@image.command("info")
@click.argument("image_", metavar="IMAGE")
@as_json
def info(image_: str, as_json: bool) -> None:
    """What an image is: how Python starts in it, and what it takes."""
    details = _ask(lambda number: control.AskImage(number, image_), control.ImageAnswer).details
    if as_json:
        print_json(named(details))
        return
    facts = [
        ("image", details.image),
        ("label", details.label),
        ("python", f"{details.python_version} {details.python}".strip()),
        ("machine", details.machine),
        ("workdir", details.workdir),
        ("files", str(sum(layer.files for layer in details.layers))),
        ("size", size(sum(layer.size for layer in details.layers))),
        ("layers", str(len(details.layers))),
        *((f"env {name}", value) for name, value in details.env),
    ]
    print_table(("", ""), [(name, value) for name, value in facts if value], "")


@image.command("history")
@click.argument("image_", metavar="IMAGE")
@as_json
def history(image_: str, as_json: bool) -> None:
    """The layers of an image, from the bottom up, as its steps made them."""
    details = _ask(lambda number: control.AskImage(number, image_), control.ImageAnswer).details
    if as_json:
        print_json([named(layer) for layer in details.layers])
        return
    rows = [
        (str(number), each.layer[:ID_DIGITS], str(each.files), size(each.size), size(each.stored), str(each.chunks))
        for number, each in enumerate(details.layers, 1)
    ]
    print_table(("#", "layer", "files", "size", "stored", "chunks"), rows, "No layers.")


@image.command("diff")
@click.argument("old")
@click.argument("new")
@as_json
def diff(old: str, new: str, as_json: bool) -> None:
    """Which files NEW adds (+), removes (-) and changes (~)."""
    answer = _ask(lambda number: control.AskImageDiff(number, old, new), control.ImageChanges)
    if as_json:
        print_json({"changes": [named(change) for change in answer.changes], "left_out": answer.left_out})
        return
    for change in answer.changes:
        click.echo(f"{change.kind} {change.path}  {_sizes(change)}")
    more = f" and {answer.left_out} more" if answer.left_out else ""
    click.echo(f"{len(answer.changes)} differences{more}.")


def _sizes(change: Change) -> str:
    if change.kind == "~":
        return f"{size(change.old_size)} → {size(change.new_size)}"
    return size(change.old_size if change.kind == "-" else change.new_size)


@image.command("prune")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--unused-days", type=click.FloatRange(min=0), help="Also images that were not used for so long.")
@click.option("--all", "everything", is_flag=True, help="All images that are not in use.")
@as_json
def prune(images: tuple[str, ...], unused_days: float | None, everything: bool, as_json: bool) -> None:
    """Remove images, and whatever no image needs. Without arguments no image goes."""
    unused_s = 0 if everything else -1 if unused_days is None else round(unused_days * 86400)
    answer = _ask(lambda number: control.PruneImages(number, images, unused_s), control.ImagesPruned)
    pruned = answer.pruned
    if as_json:
        print_json(named(pruned))
        return
    for removed in pruned.removed:
        click.echo(f"removed {removed[:ID_DIGITS]}")
    for kept in pruned.in_use:
        click.echo(f"kept {kept[:ID_DIGITS]}: it is in use, or pinned")
    click.echo(f"{size(max(0, pruned.bytes_won))} won back.")


@image.command("rm")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
def remove(images: tuple[str, ...]) -> None:
    """Remove images, and whatever no other image needs."""
    pruned = _ask(lambda number: control.PruneImages(number, images), control.ImagesPruned).pruned
    for removed in pruned.removed:
        click.echo(f"removed {removed[:ID_DIGITS]}")
    if pruned.in_use:
        names = ", ".join(each[:ID_DIGITS] for each in pruned.in_use)
        fix = "See `potluck image ls`; let go of a pinned one with `potluck image unpin`."
        raise RefusedError(f"Not removed, since in use or pinned: {names}", fix=fix)


@image.command("pin")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
def pin(images: tuple[str, ...]) -> None:
    """Keep images: they are not removed to make room, nor by anybody, until `potluck image unpin`."""
    _pin(images, True)


@image.command("unpin")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
def unpin(images: tuple[str, ...]) -> None:
    """Let images go when room is needed, as others do."""
    _pin(images, False)


def _pinning(name: str, pinned: bool, number: int) -> PinImage:
    return PinImage(number, name, pinned)


def _pin(images: tuple[str, ...], pinned: bool) -> None:
    for name in images:
        _ask(partial(_pinning, name, pinned), control.Done)
        click.echo(f"{'pinned' if pinned else 'unpinned'} {name}")


@image.command("verify")
@click.option("--repair", is_flag=True, help="Fetch what went bad from peers.")
@as_json
def verify(repair: bool, as_json: bool) -> None:
    """Read and check every chunk in the store."""
    answer = _ask(lambda number: control.VerifyImages(number, repair), control.ImagesVerified)
    if as_json:
        print_json({name: value for name, value in named(answer).items() if name != "question"})
    else:
        click.echo(f"{answer.chunks} chunks read, {answer.bad} of them bad.")
        for repaired in answer.repaired:
            click.echo(f"repaired {repaired[:ID_DIGITS]}")
    if answer.damaged:
        raise CorruptDataError(
            f"{len(answer.damaged)} images lack chunks: {', '.join(each[:ID_DIGITS] for each in answer.damaged)}",
            fix="Fetch them with `potluck image verify --repair`, or build them again.",
        )


@image.command("pull")
@click.argument("reference")
def pull(reference: str) -> None:
    """Fetch an image: by its id from peers, or by a name like python:3.12-slim from a registry."""
    answer = _ask(lambda number: control.PullImage(number, reference), control.ImageBuilt)
    click.echo(answer.image)


@image.command("push")
@click.argument("image_", metavar="IMAGE")
@click.argument("reference")
def push(image_: str, reference: str) -> None:
    """Upload an image to an OCI registry as REFERENCE, with the login of `docker login`."""
    answer = _ask(lambda number: control.PushImage(number, image_, reference), control.ImagePushed)
    click.echo(f"{reference} is {answer.digest}.")


@image.command("export")
@click.argument("image_", metavar="IMAGE")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export(image_: str, file: Path) -> None:
    """Write an image to FILE as an OCI archive, for Docker, Podman and others."""
    _ask(lambda number: control.ExportImage(number, image_, str(file.absolute())), control.Done)
    click.echo(f"{file} has {size(file.stat().st_size)}.")


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _when(at_us: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(at_us / 1e6).strftime("%Y-%m-%d %H:%M")
