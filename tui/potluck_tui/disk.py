"""What is kept on the disk, and what goes next: images, volumes, snapshots. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from potluck.wire.control import ImageFacts, StoreFacts
from potluck.wire.pins import OWNER
from potluck_tui.model import Listing, Row
from potluck_tui.words import age, bar, plain

BAR_WIDTH = 20
ID_DIGITS = 12
KIB = 1024
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class VolumeFacts:
    """The newest version of a volume: `size` in bytes; on how many other peers it is, of as many as there should be."""

    name: str
    version: int
    size: int
    at_us: int
    copies: int
    wanted: int


@dataclass(frozen=True)
class Disk:
    """`volumes` are the first so many, `more_volumes` says that there are others."""

    images: tuple[ImageFacts, ...]
    store: StoreFacts
    volumes: tuple[VolumeFacts, ...] = ()
    more_volumes: bool = False


def size(count: int) -> str:
    """Bytes for people: "312 KiB", "1.5 GiB"."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= KIB and len(units) > 1:
        value /= KIB
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 100 else f"{value:.1f} {units[0]}"


def disk_blocks(disk: Disk | None, now_us: int, problem: str) -> dict[str, Listing]:
    """Those of the page."""
    waiting = problem or "Asking the node …"
    if disk is None:
        return {name: Listing((), waiting) for name in ("budget", "kept", "volumes")}
    images = tuple(_image(each, now_us) for each in disk.images)
    volumes = tuple(_volume(each, now_us) for each in disk.volumes)
    more = (("…", "", "more:", "potluck volume list", ""),) if disk.more_volumes else ()
    return {
        "budget": Listing(tuple(_budget(disk, now_us)), ""),
        "kept": Listing(
            images, "No images yet.", ("image", "label", "size", "alone", "used", ""), 0,
            tuple(each.image for each in disk.images),
        ),
        "volumes": Listing(
            (*volumes, *more), "No volumes.", ("volume", "version", "size", "changed", "on other peers")
        ),
    }  # fmt: skip


def _image(each: ImageFacts, now_us: int) -> Row:
    used = f"{age(now_us - each.used_us)} ago"
    return each.image[:ID_DIGITS], plain(each.label), size(each.size), size(each.own), used, _state(each)


def _state(each: ImageFacts) -> str:
    words = ["in use"] * each.held + [_pin(reason) for reason in each.pins] + ["damaged"] * each.damaged
    return ", ".join(words)


def _pin(reason: str) -> str:
    kinds: Mapping[str, str] = {OWNER: "pinned", "snapshot": "pinned: a snapshot", "deployed": "pinned: deployed"}
    return kinds.get(reason.partition("-")[0], f"pinned: {plain(reason)}")


def _volume(each: VolumeFacts, now_us: int) -> Row:
    changed = f"{age(now_us - each.at_us)} ago" if each.at_us else ""
    return plain(each.name), str(each.version), size(each.size), changed, f"{each.copies} of {each.wanted} copies"


def _budget(disk: Disk, now_us: int) -> Sequence[Row]:
    store = disk.store
    taken = store.packs + store.trees
    rows = [("Budget", bar(taken, store.cap, BAR_WIDTH), f"{size(taken)} of {size(store.cap)} for images and volumes")]
    if store.free >= 0:
        rows.append(("Disk", "", f"{size(store.free)} free"))
    if store.packs > store.live:
        rows.append(("Unneeded", "", f"{size(store.packs - store.live)} that no image needs; key c clears it"))
    rows.append(("Goes next", "", _next(disk, now_us)))
    return rows


def _next(disk: Disk, now_us: int) -> str:
    """As `Shelf.make_room`: what nobody needs, then what was not used for the longest time, never what is in use."""
    free = [each for each in disk.images if not each.held and not each.pins]
    if not free:
        return "nothing: all that is kept is in use or pinned"
    last = min(free, key=lambda each: each.used_us)
    name = plain(last.label) or last.image[:ID_DIGITS]
    return f"{name}, {size(last.own)}, not used for {age(now_us - last.used_us)}; only when room is needed"
