"""What a person can have the node do from a page, each with its key, its question, and the command that does the same.
Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from potluck import wire
from potluck.wire import control
from potluck.wire.apps import AppStopped, EndCall, StopApp
from potluck.wire.pins import OWNER, PinImage
from potluck_tui.disk import ID_DIGITS, size
from potluck_tui.pages import Known
from potluck_tui.words import counted, plain

# Who says how many chunks are to be cleared waits for them: a store of 100 GiB takes about a minute.
WORK_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Act:
    """On `page`, `key` asks `question` about what is chosen there and, on yes, sends what `make` makes, which is
    answered by `kind`; `told` says how it went. `chosen` may be "" where `of_chosen` is False."""

    name: str
    page: str
    key: str
    title: str
    text: str
    command: str
    question: Callable[[control.Status, Known, str], str]
    make: Callable[[control.Status, Known, str], Callable[[int], wire.Message]]
    kind: type[wire.Message]
    told: Callable[[wire.Message], str]
    of_chosen: bool = True


def _app(status: control.Status, chosen: str) -> str:
    return next((call.app for call in status.calls if call.call == chosen), "")


def _stop_question(status: control.Status, _known: Known, chosen: str) -> str:
    app = _app(status, chosen)
    calls = sum(call.app == app for call in status.calls)
    return f"Stop the app {plain(app)}? {counted(calls, 'call')} would end, and its deployment be forgotten."


def _stop(status: control.Status, _known: Known, chosen: str) -> Callable[[int], wire.Message]:
    app = _app(status, chosen)
    return lambda number: StopApp(number, app, "stopped in the terminal")


def _stopped(answer: wire.Message) -> str:
    assert isinstance(answer, AppStopped)
    return f"{counted(answer.calls, 'call')} ended{', deployment removed' * answer.deployed}."


def _cancel_question(status: control.Status, _known: Known, chosen: str) -> str:
    found = next((call for call in status.calls if call.call == chosen), None)
    if found is None:
        return "This call has ended."
    left = counted(found.waiting, "input")
    return f"Cancel this call of {plain(found.function)}? {left} would not run; other calls of its app go on."


def _cancel(_status: control.Status, _known: Known, chosen: str) -> Callable[[int], wire.Message]:
    return lambda number: EndCall(number, chosen, "cancelled in the terminal")


def _delete_question(_status: control.Status, known: Known, chosen: str) -> str:
    found = next((each for each in known.disk.images if each.image == chosen), None) if known.disk else None
    if found is None:
        return "This image is gone."
    name = plain(found.label) or chosen[:ID_DIGITS]
    return f"Delete {name}? It frees {size(found.own)}; it can be fetched or built again."


def _delete(_status: control.Status, _known: Known, chosen: str) -> Callable[[int], wire.Message]:
    return lambda number: control.PruneImages(number, (chosen,))


def _is_pinned(known: Known, chosen: str) -> bool:
    return any(each.image == chosen and OWNER in each.pins for each in (known.disk.images if known.disk else ()))


def _pin_question(_status: control.Status, known: Known, chosen: str) -> str:
    found = next((each for each in known.disk.images if each.image == chosen), None) if known.disk else None
    if found is None:
        return "This image is gone."
    name = plain(found.label) or chosen[:ID_DIGITS]
    if _is_pinned(known, chosen):
        return f"Unpin {name}? It may go when room is needed."
    return f"Pin {name}? It stays, and takes {size(found.own)} that nothing else needs, until it is unpinned."


def _pin(_status: control.Status, known: Known, chosen: str) -> Callable[[int], wire.Message]:
    pinned = _is_pinned(known, chosen)
    return lambda number: PinImage(number, chosen, not pinned)


def _clear_question(_status: control.Status, known: Known, _chosen: str) -> str:
    freed = max(0, known.disk.store.packs - known.disk.store.live) if known.disk else 0
    return f"Clear what no image needs ({size(freed)}), and trees that no worker uses? No image goes."


def _clear(_status: control.Status, _known: Known, _chosen: str) -> Callable[[int], wire.Message]:
    return control.PruneImages


def _pruned(answer: wire.Message) -> str:
    assert isinstance(answer, control.ImagesPruned)
    kept = " It is in use or pinned, and was kept." if answer.pruned.in_use else ""
    return f"{size(max(0, answer.pruned.bytes_won))} won back.{kept}"


def _done(_answer: wire.Message) -> str:
    return "Done."


ACTS = (
    Act(
        "stop_app", "calling", "x", "Stop app", "End the calls of the chosen call's app; asks first", "app stop",
        _stop_question, _stop, AppStopped, _stopped,
    ),
    Act(
        "cancel_call", "calling", "l", "Cancel", "End the chosen call alone; asks first", "call cancel",
        _cancel_question, _cancel, control.Done, _done,
    ),
    Act(
        "delete_image", "images", "d", "Del", "Remove the chosen image; asks first", "image rm",
        _delete_question, _delete, control.ImagesPruned, _pruned,
    ),
    Act(
        "pin_image", "images", "i", "Pin", "Pin the chosen image, or unpin it; asks first", "image pin",
        _pin_question, _pin, control.Done, _done,
    ),
    Act(
        "clear", "images", "c", "Clear", "Remove what no image needs; asks first", "image prune",
        _clear_question, _clear, control.ImagesPruned, _pruned, of_chosen=False,
    ),
)  # fmt: skip
