"""The first `potluck up` in a terminal: five questions, and what becomes of the answers."""

import tomllib

import click
import pytest
from click.testing import CliRunner

from potluck.cli import first_run
from potluck.cli.first_run import Answers, settings_text
from potluck_node import config

ADDRESS = "/ip4/10.0.0.7/tcp/4001/p2p/12D3KooWAAAA"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("POTLUCK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def answered(text):
    """What is asked, and what the settings then are."""
    found = []

    @click.command()
    def command():
        found.append(first_run.ask())

    done = CliRunner().invoke(command, input=text)
    assert done.exit_code == 0, done.output
    return found[0], done.output


def test_enter_takes_every_default():
    answers, said = answered("\n\n\n\n\n")
    assert answers[:3] == ("", "all", "idle")
    assert answers.disk_gib == first_run.default_disk_gib()
    assert answers.name == first_run.default_name()
    assert all(f"{number}." in said for number in range(1, 6))


def test_nonsense_is_asked_again():
    answers, said = answered(f"what\n{ADDRESS}\nhouse\ngpus\nnever\nnights\nlots\n0\n7\na b\nbox\n")
    assert answers == (ADDRESS, "gpus", "nights", 7, "box")
    assert said.count("Error") == 6


def test_who_lends_nothing_is_not_asked_when():
    answers, said = answered("\nnothing\n\n\n")
    assert answers.lend == "nothing"
    assert "3. When" not in said


@pytest.mark.parametrize("lend", first_run.LEND)
@pytest.mark.parametrize("when", first_run.WHEN)
def test_the_node_takes_the_settings(home, lend, when):
    home.mkdir()
    (home / "config.toml").write_text(settings_text(Answers(ADDRESS, lend, when, 12, 'a"b'.replace('"', ""))))
    settings = config.load(home, {})
    assert (settings.name, settings.store_gib, settings.bootstrap) == ("ab", 12, (ADDRESS,))
    assert settings.offer == (lend != "nothing")
    assert settings.gpus == ("none" if lend == "cpus" else "all")


def test_on_no_mesh_nobody_is_to_reach_it():
    assert "listen" not in tomllib.loads(settings_text(Answers("", "all", "idle", 5, "x")))


def test_nobody_is_asked_who_is_not_there_or_has_said_enough(home, monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    assert not first_run.is_wanted({})
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout", Terminal())
    assert first_run.is_wanted({"name": None, "listen": (), "foreground": False})
    assert not first_run.is_wanted({"name": "x"})
    home.mkdir()
    (home / "config.toml").touch()
    assert not first_run.is_wanted({})
