"""Classes on the caller's side: what is a class, its parameters, and `.local`."""

import asyncio
import pickle

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import potluck
from potluck.errors import InvalidError
from potluck.options import ClassSettings, FunctionSettings
from potluck.parameters import PARAMETERS
from potluck.runner.codec import unpack
from potluck.runner.service import ENTER, EXIT, SNAP, hooks
from potluck.source import refer

app = potluck.App("classes")


class Base:
    region: str = potluck.parameter(default="here")

    @potluck.enter()
    def first(self):
        self.entered = ["first"]

    @potluck.method()
    def inherited(self):
        return self.entered

    @potluck.method()
    def shout(self, text):
        return text.upper()


@app.cls(cpu=2)
class Model(Base):
    """Counts."""

    name: str = potluck.parameter(default="small")
    size: "int" = potluck.parameter(default=1)
    fast: bool = potluck.parameter(default=False)
    key: bytes = potluck.parameter(default=b"")
    weights: list[int] = potluck.parameter(init=False)

    @potluck.enter()
    def second(self):
        self.entered.append("second")

    @potluck.enter(snap=True)
    def load(self):
        self.weights = [self.size]

    @potluck.exit()
    def close(self):
        pass

    @potluck.method()
    def predict(self, x: int) -> int:
        """Adds."""
        return x + self.weights[0]

    @potluck.method()
    def twice(self, x: int) -> int:
        return self.predict.local(x) + self.predict.local(x)

    @potluck.method()
    async def later(self, x):
        await asyncio.sleep(0)
        return x, self.entered

    @potluck.method()
    def shout(self, text):
        return super().shout.local(text) + "!"


def test_local_enters_once_and_calls():
    model = Model(size=5)
    assert model.predict.local(1) == 6
    assert model.inherited.local() == ["first", "second"]
    assert model.twice.local(1) == 12
    assert model.shout.local("a") == "A!"


def test_local_of_an_async_method_enters_within_its_coroutine():
    assert asyncio.run(Model().later.local(3)) == (3, ["first", "second"])


def test_async_enter_methods_run_locally_in_order():
    @potluck.App().cls()
    class Async:
        @potluck.enter(snap=True)
        async def load(self):
            self.value = await asyncio.sleep(0, "loaded")

        @potluck.enter()
        def use(self):
            self.used = self.value

        @potluck.method()
        def get(self):
            return self.used

        @potluck.method()
        async def get_async(self):
            return self.used

    assert Async().get.local() == "loaded"
    assert asyncio.run(Async().get_async.local()) == "loaded"


def test_a_failed_enter_is_tried_again():
    tries = []

    @potluck.App().cls()
    class Flaky:
        @potluck.enter()
        def connect(self):
            tries.append(1)
            if len(tries) == 1:
                raise OSError("not yet")

        @potluck.method()
        def call(self):
            return len(tries)

    flaky = Flaky()
    with pytest.raises(OSError, match="not yet"):
        flaky.call.local()
    assert (flaky.call.local(), flaky.call.local()) == (2, 2)


def test_hooks_come_base_class_first_and_snap_before_the_rest():
    model = Model()
    assert [hook.__name__ for hook in hooks(model, SNAP, ENTER)] == ["load", "first", "second"]
    assert [hook.__name__ for hook in hooks(model, EXIT)] == ["close"]


def test_an_override_replaces_the_hook_of_the_base_class():
    class Quiet(Base):
        def first(self):
            pass

    assert hooks(Quiet(), ENTER) == []


def test_methods_keep_names_docs_and_the_way_to_call_them():
    function = Model().predict
    assert (function.name, function.__doc__) == ("Model.predict", "Adds.")
    assert isinstance(function, potluck.Function)
    with pytest.raises(InvalidError, match=r"Model\.predict\.remote"):
        function(1)
    with pytest.raises(InvalidError, match=r"app\.run"):
        function.remote(1)
    with pytest.raises(InvalidError, match="Make an object first"):
        Model.predict.remote(1)
    assert app.registered_classes == {"Model": Model}


def parameters(model):
    return dict(unpack(vars(model)[PARAMETERS]))


def test_parameters_are_attributes_and_travel_sorted():
    model = Model(size=7, name="large")
    assert (model.name, model.size, model.fast, model.key, model.region) == ("large", 7, False, b"", "here")
    assert list(parameters(model)) == sorted(parameters(model))
    with pytest.raises(AttributeError, match="weights of Model"):
        model.weights  # noqa: B018


@given(st.text(), st.integers(-(1 << 63), (1 << 63) - 1), st.booleans(), st.binary())
def test_equal_parameters_share_a_pool_and_others_do_not(name, size, fast, key):
    one = Model(name=name, size=size, fast=fast, key=key)
    assert parameters(one) == {"name": name, "size": size, "fast": fast, "key": key, "region": "here"}
    again = Model(key=bytes(bytearray(key)), fast=fast, size=size, name="".join(list(name)))
    assert one.predict._key == again.twice._key
    assert one.predict._key != Model(name=name + "x", size=size, fast=fast, key=key).predict._key


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"size": "1"}, "parameter size of Model"),
        ({"size": True}, "is a bool, not a int"),
        ({"fast": 1}, "is a int, not a bool"),
        ({"name": None}, "parameter name of Model"),
        ({"key": "text"}, "parameter key of Model"),
        ({"size": 1 << 63}, "64 bits"),
        ({"size": 10**5000}, "64 bits"),
        ({"name": "\ud800"}, "UTF-8"),
        ({"nome": "a"}, r"no parameter nome(.|\n)*name=str"),
        ({"weights": []}, "no parameter weights"),
        ({"key": bytes(1 << 17)}, "argument of a method"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(values, text):
    with pytest.raises(InvalidError, match=text):
        Model(**values)


def test_positions_and_missing_parameters_are_refused():
    @potluck.App().cls()
    class Needs:
        size: int = potluck.parameter()

    with pytest.raises(InvalidError, match=r"by name(.|\n)*Needs\(size=int"):
        Needs(3)
    with pytest.raises(InvalidError, match="needs the parameter size"):
        Needs()


@pytest.mark.parametrize("annotation", [float, list[int], "float", None, int | None])
def test_parameters_of_other_types_are_refused(annotation):
    body = {"size": potluck.parameter()} | ({"__annotations__": {"size": annotation}} if annotation else {})
    with pytest.raises(InvalidError, match=r"Odd\.size has no type"):
        potluck.App().cls()(type("Odd", (), body))


def test_a_default_of_another_type_is_refused():
    with pytest.raises(InvalidError, match=r"default of the parameter .*Odd\.name"):

        @potluck.App().cls()
        class Odd:
            name: str = potluck.parameter(default=None)


def test_an_init_of_its_own_is_refused_with_the_alternative():
    with pytest.raises(InvalidError, match=r"__init__(.|\n)*potluck\.parameter"):

        @potluck.App().cls()
        class Odd:
            def __init__(self, name):
                self.name = name

    with pytest.raises(InvalidError, match="__init__"):
        potluck.App().cls()(type("Derived", (dict,), {}))


def test_slots_are_refused():
    with pytest.raises(InvalidError, match="__slots__"):
        potluck.App().cls()(type("Odd", (), {"__slots__": ()}))


def test_what_belongs_elsewhere_is_refused():
    def lonely(self):
        pass

    for decorate in (potluck.method(), potluck.enter(), potluck.exit()):
        with pytest.raises(InvalidError, match="not in a class"):
            decorate(lonely)
        with pytest.raises(InvalidError, match="plain methods"):
            decorate(Base.inherited)
    with pytest.raises(InvalidError, match=r"@app\.cls"):
        app.function()(Base)
    with pytest.raises(InvalidError, match=r"@app\.function"):
        app.cls()(lonely)


def test_a_method_knows_whether_it_is_a_generator():
    @potluck.App().cls()
    class Odd:
        @potluck.method()
        def generate(self):
            yield 1

        @potluck.method()
        def plain(self):
            return 1

    odd = Odd()
    with pytest.raises(InvalidError, match="remote_gen"):
        odd.generate.remote()
    with pytest.raises(InvalidError, match="is no generator"):
        odd.plain.remote_gen()
    assert (odd.plain._yields, odd.plain._pool_yields) == (False, True)
    assert list(odd.generate.local()) == [1]


def test_hooks_with_arguments_are_refused():
    for decorate in (potluck.enter(), potluck.exit()):
        with pytest.raises(InvalidError, match="arguments besides self"):

            class Other:
                @decorate
                def hook(self, size):
                    pass


def test_one_name_one_class():
    app = potluck.App("names")
    app.cls()(type("Same", (), {}))
    with pytest.raises(InvalidError, match="two classes named Same"):
        app.cls()(type("Same", (), {}))
    with pytest.raises(InvalidError, match="decorated with"):
        app.cls()(app.registered_classes["Same"])


def test_a_class_that_is_not_registered_says_so():
    class Sub(Model):
        pass

    for made in (Base(), Sub()):
        with pytest.raises(InvalidError, match=r"@app\.cls\(\)"):
            made.inherited  # noqa: B018


def test_subclasses_of_classes_can_be_classes():
    @app.cls()
    class Larger(Model):
        depth: int = potluck.parameter(default=2)

    larger = Larger(depth=3, size=4)
    assert larger.predict.local(1) == 5
    assert parameters(larger)["depth"] == 3
    assert larger.predict.name == "Larger.predict"


def test_a_class_of_a_module_travels_by_name_others_by_value():
    assert refer(Model)[:3] == (Model.__module__, "Model", b"")

    @app.cls()
    class Here:
        size: int = potluck.parameter(default=1)
        late: int = potluck.parameter(init=False)

        @potluck.method()
        def double(self):
            return 2 * self.size

    sent = pickle.loads(refer(Here).pickled)
    assert sent(size=4).double.local() == 8
    with pytest.raises(AttributeError, match="late"):
        sent().late  # noqa: B018


def test_a_method_inside_an_argument_is_that_of_an_equal_object():
    copy = pickle.loads(cloudpickle.dumps(Model(size=9).predict))
    assert copy.local(1) == 10


def test_options_are_those_of_functions():
    assert FunctionSettings.__annotations__.keys() - ClassSettings.__annotations__.keys() == {
        "name",
        "is_generator",
        "schedule",
    }
    with pytest.raises(InvalidError, match="cpu"):
        app.cls(cpu=-1)


def test_other_options_make_another_class_of_the_same_code():
    large = Model.with_options(cpu=8).with_concurrency(max_inputs=5)(size=3)
    assert large.predict.local(1) == 4
    options = large.predict._options
    assert (options.cpu, options.sharing.max_inputs) == (8, 5)
    assert Model(size=3).predict._options.cpu == 2
    assert large.predict._key != Model(size=3).predict._key
    with pytest.raises(InvalidError, match="with_options"):
        large.predict.with_options(cpu=1)
    copy = pickle.loads(cloudpickle.dumps(large))
    assert copy.predict.local(1) == 4
    assert pickle.loads(cloudpickle.dumps(Model.with_options(cpu=8)))(size=3).predict.local(1) == 4


def test_a_batched_method_stands_alone():
    @potluck.App().cls()
    @potluck.concurrent(max_inputs=3)
    class Alone:
        @potluck.batched(max_batch_size=4, wait_ms=10)
        def double(self, xs):
            return [2 * x for x in xs]

    assert Alone().double.local([1, 2]) == [2, 4]
    assert Alone().double._options.sharing == (3, 0, 4, 10)

    class Two(Base):
        @potluck.batched(max_batch_size=4, wait_ms=10)
        def double(self, xs):
            return [2 * x for x in xs]

    with pytest.raises(InvalidError, match="others beside it"):
        potluck.App().cls()(Two)
    with pytest.raises(InvalidError, match="others beside it"):
        Model.with_batching(max_batch_size=2, wait_ms=1)
    with pytest.raises(InvalidError, match="Decorate the class"):

        class Wrong:
            @potluck.concurrent(max_inputs=3)
            def f(self):
                pass
