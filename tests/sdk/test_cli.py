"""How `potluck run` turns a file and its arguments into a call; nothing here needs a node."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import potluck
from potluck.cli.calls import print_calls
from potluck.cli.find import find_app
from potluck.cli.main import main
from potluck.cli.run import as_command, choose, load
from potluck.cli.show import ago
from potluck.errors import InvalidError, NotFoundError
from potluck.wire.control import CallStatus


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


TWO_APPS = "first = potluck.App('one')\nsecond = potluck.App('two')\n"


def test_the_app_is_chosen_by_variable_or_name(tmp_path):
    path = tmp_path / "two_apps.py"
    path.write_text("import potluck\n" + TWO_APPS)
    assert find_app(f"{path}::second").name == "two"
    assert find_app(f"{path}::one").name == "one"
    with pytest.raises(InvalidError, match=r"two_apps\.py::first, .*two_apps\.py::second"):
        find_app(str(path))
    with pytest.raises(NotFoundError, match="it has: first, second"):
        find_app(f"{path}::third")


def test_an_app_with_two_names_is_one(tmp_path):
    path = tmp_path / "one_app.py"
    path.write_text("import potluck\napp = also = potluck.App('one')\n")
    assert find_app(str(path)).name == "one"


def test_what_is_wrong_with_a_file_is_said_in_three_lines(tmp_path):
    broken = tmp_path / "broken_file.py"
    broken.write_text("x = 1\ndef f(:\n")
    for command in ("run", "deploy"):
        done = CliRunner().invoke(main, [command, str(broken)])
        assert done.exit_code == 1
        assert "is not valid Python" in done.output
        assert "line 2: " in done.output
        assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "arguments",
    [["deploy"], ["deploy", "absent.py"], ["app", "stop"], ["container", "logs"], ["serve"], ["app", "nonsense"]],
)
def test_what_was_not_understood_is_refused(arguments):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == (1 if arguments[-1] == "absent.py" else 2)
    assert "Traceback" not in done.output


def test_lists_need_a_node_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("POTLUCK_HOME", str(tmp_path))
    for arguments in (["app", "list"], ["container", "list", "--json"], ["app", "logs", "x"], ["app", "stop", "x"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 1
        assert "potluck up" in done.output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (3 * 86400, "3 d")]
)
def test_times_are_as_precise_as_people_ask(seconds, text):
    assert ago(1, 1 + seconds * 1_000_000) == text
    assert ago(0, 5) == ""


def test_calls_are_explained_peer_by_peer(capsys):
    would = ("ann: runs 2 of 2 at once", "\x1b[31mbob: cannot run it")
    print_calls((CallStatus("1.1", "train", 30, 18, "waiting for 1 A10G", would), CallStatus("1.2", "f", 1, 1, "")))
    assert capsys.readouterr().out.splitlines() == [
        "train, 12 of 30 done: waiting for 1 A10G",
        "  ann: runs 2 of 2 at once",
        "  [31mbob: cannot run it",
        "f, 0 of 1 done",
    ]
