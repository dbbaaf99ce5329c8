"""docs/coming-from-modal.md against Modal itself, and against what is here."""

import re
from pathlib import Path

import modal
import pytest

import potluck
import potluck.modal
from potluck.absent import ABSENT

PAGE = Path(__file__).parent.parent / "docs" / "coming-from-modal.md"
CLASSES = ("App", "Cls", "Dict", "Function", "FunctionCall", "Image", "Queue", "Retries", "Sandbox", "Secret", "Volume")
APP = potluck.App("names")


@APP.cls()
class Model:
    pass


# Some names are those of objects alone.
OBJECTS = {
    "App": APP,
    "Cls": Model.with_options(),
    "Dict": potluck.Dict("names", "di-1"),
    "Function": APP.function()(len),
    "FunctionCall": potluck.FunctionCall("fc-1"),
    "Image": potluck.Image.from_id("0" * 64),
    "Queue": potluck.Queue("names", "qu-1"),
    "Retries": potluck.Retries(max_retries=1),
    "Sandbox": potluck.Sandbox("fc-1"),
    "Secret": potluck.Secret.from_dict({}),
    "Volume": potluck.Volume("names", "vo-1"),
}


def table():
    """Name → (same, different or not here; the rest)."""
    found = {}
    for line in PAGE.read_text().splitlines():
        row = re.fullmatch(r"\| (`.+`) \| (same|different|not here) \| ?(.*) \|", line)
        for name in re.findall("`([^`]+)`", row[1]) if row else ():
            assert name not in found, f"{name} stands twice"
            found[name] = (row[2], row[3].strip())
    return found


TABLE = table()


def public(holder):
    return {name for name in dir(holder) if not name.startswith("_")}


def exceptions():
    members = {name: getattr(modal.exception, name) for name in public(modal.exception)}
    return {name for name, kind in members.items() if isinstance(kind, type) and issubclass(kind, BaseException)}


def test_every_name_of_modal_is_in_the_table_and_no_other():
    names = set(modal.__all__) | {f"exception.{name}" for name in exceptions()}
    for kind in CLASSES:
        names |= {f"{kind}.{name}" for name in public(getattr(modal, kind))}
    assert TABLE.keys() == names


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_table_tells_the_truth(name):
    status, note = TABLE[name]
    holder, _, attribute = name.rpartition(".")
    if status == "not here":
        assert note == ABSENT[name]
    elif not holder:
        assert name in potluck.modal.__all__
    else:
        assert hasattr(potluck.errors if holder == "exception" else OBJECTS[holder], attribute)
    assert bool(note) == (status != "same")


def test_what_takes_the_same_parameters_takes_those_of_modal():
    """Each parameter of Modal's decorators is either taken or refused with a reason."""
    import inspect

    from potluck.options import KNOWN, RENAMED

    for decorator in (modal.App.function, modal.App.cls):
        names = {name for name in inspect.signature(decorator).parameters if not name.startswith("_")}
        assert names - {"self"} <= KNOWN | RENAMED.keys()
