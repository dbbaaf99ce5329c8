"""Modal's names: what `import potluck.modal as modal` gives, and what it says of the rest."""

import subprocess
import sys

import pytest

import potluck
import potluck.modal as modal
from potluck.absent import ABSENT, AbsentError
from potluck.cli.run import load
from potluck.errors import InvalidError, NotFoundError


def run(program: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the module `modal` is one for all."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_names_are_those_of_potluck():
    for name in modal.__all__:
        assert getattr(modal, name) is getattr(potluck, name)
    assert modal.exception.InvalidError is InvalidError


@pytest.mark.parametrize("name", sorted(name for name in ABSENT if "." not in name))
def test_a_name_that_is_not_there_says_what_is_nearest(name):
    with pytest.raises(InvalidError, match=name) as caught:
        getattr(modal, name)
    assert caught.value.fix == ABSENT[name]


def test_other_names_are_ordinary_mistakes():
    with pytest.raises(AttributeError, match="Vollume"):
        modal.Vollume  # noqa: B018


def test_methods_that_are_not_there_say_so_too():
    function = potluck.App("tests").function()(len)
    with pytest.raises(AbsentError, match=r"Function\.get_dashboard_url"):
        function.get_dashboard_url()
    assert not hasattr(function, "get_dashboard_url")
    with pytest.raises(AttributeError, match="no attribute 'remotely'"):
        function.remotely  # noqa: B018
    with pytest.raises(AbsentError, match=r"App\.set_tags"):
        potluck.App("tests").set_tags({})
    with pytest.raises(AbsentError, match=r"Sandbox\.mount_image"):
        potluck.Sandbox.mount_image("/")
    with pytest.raises(AbsentError, match=r"Image\.from_aws_ecr"):
        modal.Image.from_aws_ecr("x")
    with pytest.raises(AttributeError, match="no attribute 'forName'"):
        potluck.Function.forName  # noqa: B018


def test_no_name_is_both_there_and_absent():
    for name in ABSENT:
        kind, _, attribute = name.partition(".")
        if kind == "exception":
            assert attribute not in vars(potluck.errors)
            with pytest.raises(InvalidError, match=attribute):
                getattr(potluck.errors, attribute)
        elif attribute:
            assert not hasattr(getattr(potluck, kind), attribute), name
        else:
            assert not hasattr(potluck, name), name


def test_import_modal_gives_it_once_it_took_the_name():
    done = run("""
from potluck.modal import take_name
take_name()
import modal, modal.exception, potluck
from modal.functions import Function
from modal import App, concurrent
assert App is potluck.App and Function is potluck.Function and modal.exception is potluck.errors
assert modal.functions is potluck.functions
take_name()
from modal import Proxy
""")
    assert "Potluck has no Proxy" in done.stderr
    assert "take_name" not in done.stderr.splitlines()[-2]


def test_the_stand_in_gives_way_to_it():
    done = run("""
import importlib, sys
stand_in = importlib.import_module("potluck.as_modal")
import modal
assert modal is sys.modules["potluck.modal"] is not stand_in
""")
    assert done.returncode == 0, done.stderr


def test_modal_itself_is_not_replaced_behind_the_programs_back():
    done = run("""
import sys, types
sys.modules["modal"] = types.ModuleType("modal")
from potluck.modal import take_name
take_name()
""")
    assert "Modal itself was imported before" in done.stderr


def test_its_stand_in_is_shipped_where_it_has_the_name(tmp_path):
    (tmp_path / "program.py").write_text("import modal\napp = modal.App('a')\n@app.function()\ndef f(): pass\n")
    done = run(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from potluck.modal import take_name
from potluck.source import refer
take_name()
import program
print(*[inside for inside, _ in refer(program.f.get_raw_f()).files])
""")
    assert done.stdout.split() == ["/app/program.py", "/app/modal.py"]


def test_a_program_for_modal_says_how_it_is_started_where_modal_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "modal", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "for_modal.py").write_text("import modal\n")
    with pytest.raises(NotFoundError, match="--as modal"):
        load(str(tmp_path / "for_modal.py"))
