"""`potluck run FILE.py::Model.method`, without a node."""

import types

import click
import pytest

import potluck
from potluck.cli.methods import find_method
from potluck.errors import InvalidError, NotFoundError

app = potluck.App("methods")


@app.cls()
class Model:
    name: str = potluck.parameter()
    size: int = potluck.parameter(default=2)

    @potluck.method()
    def repeat(self, times: int = 3) -> str:
        return self.name * self.size * times

    @potluck.method()
    def rename(self, name: str) -> str:
        return name


@app.cls()
class Single:
    @potluck.method()
    def only(self) -> int:
        return 1


FILE = types.SimpleNamespace(app=app)


def called(name, *words):
    method = find_method(FILE, name)
    with method.as_command().make_context("run", list(words)) as context:
        function, arguments = method.bind(context.params)
    return function.local(**arguments)


def test_parameters_of_the_class_and_the_method_are_options():
    assert called("Model.repeat", "--name", "ab") == "ab" * 6
    assert called("Model.repeat", "--name", "ab", "--size", "1", "--times", "2") == "abab"


def test_a_class_with_one_method_needs_no_more_than_its_name():
    assert called("Single") == 1
    with pytest.raises(InvalidError, match=r"Model\.repeat, Model\.rename"):
        find_method(FILE, "Model")


def test_what_is_missing_or_double_is_said():
    with pytest.raises(click.MissingParameter, match="name"):
        called("Model.repeat")
    with pytest.raises(NotFoundError, match="it has: repeat, rename"):
        find_method(FILE, "Model.predict")
    with pytest.raises(InvalidError, match="both take name"):
        called("Model.rename")


def test_other_names_are_no_methods():
    assert find_method(FILE, "main") is None
    assert find_method(FILE, "Other.method") is None
    assert find_method(FILE, "") is None
