"""How `potluck run` turns a file and its arguments into a call; nothing here needs a node."""

from pathlib import Path

import click
import pytest

import potluck
from potluck.cli.run import as_command, choose, load
from potluck.errors import InvalidError, NotFoundError


def module(tmp_path, monkeypatch, text, name):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / f"{name}.py"
    path.write_text("import potluck\n" + text)
    return load(str(path)), str(path)


ENTRY = "app = potluck.App('a')\n@app.local_entrypoint()\ndef main(x: int = 1): pass\n"


def test_the_one_entrypoint_is_found(tmp_path, monkeypatch):
    loaded, path = module(tmp_path, monkeypatch, ENTRY, "one_entry")
    app, chosen = choose(loaded, "", path)
    assert (app.name, chosen.__name__) == ("a", "main")


def test_the_one_function_is_found_when_there_is_no_entrypoint(tmp_path, monkeypatch):
    text = "app = potluck.App('a')\n@app.function()\ndef f(): pass\n"
    loaded, path = module(tmp_path, monkeypatch, text, "one_function")
    assert choose(loaded, "", path)[1].name == "f"


def test_several_must_be_chosen_from(tmp_path, monkeypatch):
    text = ENTRY + "@app.local_entrypoint()\ndef other(): pass\n"
    loaded, path = module(tmp_path, monkeypatch, text, "two_entries")
    with pytest.raises(InvalidError, match=r"::main.*::other"):
        choose(loaded, "", path)
    assert choose(loaded, "other", path)[1].__name__ == "other"
    with pytest.raises(NotFoundError, match="it has: main, other"):
        choose(loaded, "third", path)


@pytest.mark.parametrize(
    ("text", "words"), [("", "has no app"), ("app = potluck.App('a')\n", "nothing to run")], ids=["none", "empty"]
)
def test_nothing_to_run_says_what_to_write(tmp_path, monkeypatch, text, words, request):
    loaded, path = module(tmp_path, monkeypatch, text, f"empty_{request.node.callspec.id}")
    with pytest.raises(NotFoundError, match=words):
        choose(loaded, "", path)


def test_a_file_that_does_not_exist():
    with pytest.raises(NotFoundError, match="no file"):
        load("nowhere/absent.py")
    with pytest.raises(NotFoundError, match="no module"):
        load("a_module_that_nobody_has")


def parsed(function, *arguments):
    entry = potluck.App("cli").local_entrypoint()(function)
    with as_command(entry).make_context("run", list(arguments)) as context:
        return context.params


def test_arguments_have_the_types_of_the_signature():
    def main(count: int, rate: float = 0.5, name: str = "x", deep_copy: bool = False, out: Path = Path("a")):
        pass

    given = parsed(main, "--count", "3", "--rate", "2", "--deep-copy", "--out", "b/c")
    assert given == {"count": 3, "rate": 2.0, "name": "x", "deep_copy": True, "out": Path("b/c")}
    assert parsed(main, "--count", "1", "--no-deep-copy")["deep_copy"] is False


def test_optional_and_untyped_arguments():
    def main(limit: int | None = None, word="w"):
        pass

    assert parsed(main) == {"limit": None, "word": "w"}
    assert parsed(main, "--limit", "3", "--word", "z") == {"limit": 3, "word": "z"}


def test_wrong_missing_and_unknown_arguments_are_refused():
    def main(count: int):
        pass

    for arguments in (["--count", "x"], [], ["--count", "1", "--other", "2"]):
        with pytest.raises(click.UsageError):
            parsed(main, *arguments)


def test_types_that_no_option_can_have_are_refused():
    def main(values: list[int]):
        pass

    with pytest.raises(InvalidError, match="values"):
        parsed(main)

    def star(*values: int):
        pass

    with pytest.raises(InvalidError, match=r"\*values"):
        parsed(star)
