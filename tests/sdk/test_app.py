import pickle

import pytest
from tests.e2e import sample

import potluck
from potluck.errors import InvalidError, SerializationError
from potluck.source import SOURCE_ROOT, refer


def f(x: int) -> int:
    """Adds one."""
    return x + 1


@pytest.fixture
def app():
    return potluck.App("tests")


def test_a_function_keeps_its_name_docs_and_local_behaviour(app):
    function = app.function()(f)
    assert (function.name, function.__doc__) == ("f", "Adds one.")
    assert function.local(1) == 2
    assert function.get_raw_f() is f
    assert app.registered_functions == {"f": function}


def test_calling_it_plainly_says_what_to_write(app):
    with pytest.raises(InvalidError, match=r"f\.remote"):
        app.function()(f)(1)


def test_remote_without_a_run_says_how_to_start_one(app):
    with pytest.raises(InvalidError, match="potluck run"):
        app.function()(f).remote(1)
    with pytest.raises(InvalidError, match=r"app\.run"):
        next(app.function(name="g")(f).map([1]))


@pytest.mark.parametrize(
    "options",
    [
        {"cpu": 0},
        {"cpu": -1},
        {"memory": 0},
        {"timeout": 0},
        {"timeout": 10**9},
        {"retries": 11},
        {"retries": -1},
    ],
)
def test_impossible_options_are_refused(app, options):
    with pytest.raises(InvalidError):
        app.function(**options)(f)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b"])
def test_names_of_apps(name):
    with pytest.raises(InvalidError, match="name"):
        potluck.App(name)


def test_two_functions_of_one_name_are_refused(app):
    app.function()(f)
    with pytest.raises(InvalidError, match="two functions"):
        app.function()(f)


def test_decorating_twice_or_without_parentheses_is_refused(app):
    with pytest.raises(InvalidError, match="parentheses"):
        app.function()(app.function()(f))
    with pytest.raises(TypeError):
        app.function(f)


def test_generators_are_called_with_remote_gen_alone(app):
    @app.function()
    def generate():
        yield 1

    for call in (generate.remote, generate.spawn, lambda: generate.map([1]), lambda: generate.spawn_map([1])):
        with pytest.raises(InvalidError, match="remote_gen"):
            call()
    with pytest.raises(InvalidError, match=r"f\.remote"):
        app.function()(f).remote_gen(1)
    assert list(generate.local()) == [1]


def test_async_generators_are_found_too_and_what_only_returns_one_can_be_told(app):
    async def generate():
        yield 1

    def returns_one():
        return iter([1])

    with pytest.raises(InvalidError, match="remote_gen"):
        app.function()(generate).remote()
    with pytest.raises(InvalidError, match="remote_gen"):
        app.function(is_generator=True)(returns_one).remote()
    with pytest.raises(InvalidError, match="not running"):
        app.function(name="plain")(returns_one).remote()


@pytest.mark.parametrize("package", ["", "-r requirements.txt", 3])
def test_odd_packages_are_refused(package):
    with pytest.raises(InvalidError):
        potluck.Image.local_python().pip_install(package)


def test_images_do_not_change_each_other():
    base = potluck.Image.local_python()
    one = base.pip_install("b", ["a"], extra_index_url="u")
    assert repr(base) == "Image(LocalPython)"
    step = one._definition().steps[-1]
    assert step.packages == ("a", "b")
    assert step.options == (("extra-index-url", "u"),)
    assert one._definition() == base.pip_install("a", "b", extra_index_url="u")._definition()


@pytest.mark.parametrize("variables", [{"A=B": "c"}, {"": "c"}, {"A": "\0"}, {"A": 1}])
def test_odd_environments_are_refused(variables):
    with pytest.raises(InvalidError):
        potluck.Image.local_python().env(variables)


def test_a_module_function_is_referred_to_by_name_and_its_package_shipped():
    reference = refer(sample.add.get_raw_f())
    assert (reference.module, reference.qualname, reference.pickled) == ("tests.e2e.sample", "add", b"")
    ((inside, outside),) = reference.files
    assert inside == f"{SOURCE_ROOT}/tests"
    assert outside.endswith("/tests")


def test_a_closure_is_pickled_and_its_package_shipped_as_well():
    base = 3

    def add(x):
        return x + base

    reference = refer(add)
    assert pickle.loads(reference.pickled)(4) == 7
    assert [inside for inside, _ in reference.files] == [f"{SOURCE_ROOT}/tests"]


def test_what_is_serialized_or_in_the_image_goes_without_its_package():
    raw = sample.add.get_raw_f()
    assert not refer(raw, serialized=True).files
    reference = refer(raw, include_source=False)
    assert (reference.module, reference.files) == ("tests.e2e.sample", ())


def test_a_closure_over_a_lock_names_it():
    import threading

    lock = threading.Lock()

    def use():
        return lock

    with pytest.raises(SerializationError, match="lock"):
        refer(use)


def test_a_function_inside_a_closure_travels_without_its_run(app):
    function = app.function()(f)
    again = pickle.loads(pickle.dumps(function))
    assert again.local(1) == 2
    assert again.app.name == "tests"


def test_errors_cross_processes_whole():
    from potluck.wire import Failure, decode, encode

    error = potluck.errors.NoPeerError("what", why="why", fix="fix")
    for copy in (pickle.loads(pickle.dumps(error)), decode(encode(Failure.of(error)), Failure).error()):
        assert type(copy) is type(error)
        assert str(copy) == str(error) == "what\n  why: why\n  fix: fix"


def test_error_kinds_are_unique():
    seen: dict[str, type] = {}
    todo = [potluck.Error]
    while todo:
        kind = todo.pop()
        assert seen.setdefault(kind.kind, kind) is kind
        todo += kind.__subclasses__()
