"""What `@app.function` is told, on its way to a provider."""

import pickle
from typing import Any

import pytest

import potluck
from potluck.deploy import _deployed
from potluck.errors import InvalidError
from potluck.options import KNOWN, REFUSED, RENAMED, Options, limited
from potluck.source import Reference
from potluck.spec import changed, make_spec, scaled
from potluck.wire.common import Limit, Resources, RetryPolicy, Scaling, Sharing, function_id

KEY = b"0123456789abcdef"


def f(x: int) -> int:
    return x


def spec_of(function):
    return make_spec(function, Reference("m", "f"), "1" * 64, "3.11", KEY)


def spec(**settings: Any):
    return spec_of(potluck.App("tests").function(**settings)(f))


def test_what_is_not_given_is_left_to_the_nodes():
    plain = spec()
    assert plain.resources == Resources((), 1000, 512, 0)
    assert (plain.scaling, plain.sharing) == (Scaling(), Sharing())
    assert (plain.secrets, plain.salt, plain.region, plain.labels) == ((), b"", (), ())
    assert not plain.generator
    assert not plain.snapshot


def test_each_setting_arrives():
    full = spec(
        gpu=["H100", "any"], cpu=(1, 2.5), memory=(512, 2048), ephemeral_disk=1000, timeout=7, startup_timeout=9,
        retries=2, env={"A": "1", "B": None}, min_containers=1, max_containers=4, buffer_containers=2,
        scaledown_window=60, single_use_containers=True, region="eu", labels={"disk": "fast"},
        enable_memory_snapshot=True, block_network=False,
    )  # fmt: skip
    assert full.resources == Resources(("H100", "any"), 2500, 2048, 1000)
    assert (full.timeout_us, full.startup_timeout_us) == (7_000_000, 9_000_000)
    assert full.retries == RetryPolicy(2, 1_000_000, 1000, 60_000_000)
    assert full.env == (("A", "1"),)
    assert full.scaling == Scaling(1, 4, 2, 60_000_000, True)
    assert (full.region, full.labels, full.snapshot, full.network) == (("eu",), (("disk", "fast"),), True, ("*",))
    assert spec(region=["eu", "us"]).region == ("eu", "us")


def test_secrets_travel_apart_from_the_environment_and_make_workers_of_their_own(monkeypatch):
    monkeypatch.setenv("TOKEN", "old")
    app = potluck.App("tests", secrets=[potluck.Secret.from_local_environ(["TOKEN"])])
    function = app.function(secrets=[potluck.Secret.from_dict({"OTHER": "x"})])(f)
    monkeypatch.setenv("TOKEN", "new")
    made = spec_of(function)
    assert made.secrets == (("OTHER", "x"), ("TOKEN", "new"))
    assert made.env == ()
    assert made.salt == spec_of(function).salt != b""
    assert made.salt != spec_of(function.with_options(secrets=[potluck.Secret.from_dict({"A": "b"})])).salt
    assert make_spec(function, Reference("m", "f"), "1" * 64, "3.11", b"another run's").salt != made.salt
    assert "new" not in repr(made)
    assert function_id(made) != function_id(spec())


def test_a_secret_takes_its_values_along(monkeypatch):
    monkeypatch.setenv("TOKEN", "here")
    sent = pickle.dumps(potluck.Secret.from_local_environ(["TOKEN"]))
    monkeypatch.delenv("TOKEN")
    assert potluck.secret.values(pickle.loads(sent)) == (("TOKEN", "here"),)


def test_concurrent_and_batched_arrive():
    app = potluck.App("tests")
    batch = potluck.batched(max_batch_size=3, wait_ms=5)(lambda xs: xs)
    both = app.function()(potluck.concurrent(max_inputs=8, target_inputs=4)(batch))
    assert spec_of(both).sharing == Sharing(8, 4, 3, 5000)
    plain = app.function()(f)
    assert spec_of(plain.with_concurrency(max_inputs=2)).sharing == Sharing(2)
    assert spec_of(plain.with_batching(max_batch_size=2, wait_ms=1)).sharing == Sharing(1, 0, 2, 1000)


def test_with_options_changes_what_it_names_and_no_more():
    app = potluck.App("tests")
    function = app.function(cpu=2, memory=1024, min_containers=1, env={"A": "1"})(f)
    other = function.with_options(cpu=4, max_containers=3)
    assert spec_of(other).resources == Resources((), 4000, 1024)
    assert (spec_of(other).scaling, spec_of(other).env) == (Scaling(1, 3), (("A", "1"),))
    assert spec_of(function).resources == Resources((), 2000, 1024)
    assert other._key != function._key
    assert app.registered_functions == {"f": function}


def test_a_spec_from_elsewhere_keeps_what_is_not_named():
    deployed = spec(cpu=2, gpu="H100", retries=3, region="eu", secrets=[potluck.Secret.from_dict({"A": "b"})])
    other = changed(deployed, Options({"memory": 4096, "retries": 0}), b"another")
    assert other.resources == Resources(("H100",), 2000, 4096)
    assert (other.retries.max_retries, other.region) == (0, ("eu",))
    assert (other.secrets, other.salt) == (deployed.secrets, deployed.salt)


def test_a_limit_is_one_for_all_calls_of_a_function_in_a_run_and_of_a_deployed_one_for_each():
    found = spec(max_gpu_seconds=3.5, max_cost=2)
    assert (found.limit.lease_us, found.limit.cost) == (3_500_000, 2_000_000)
    assert found.limit == spec(max_gpu_seconds=3.5, max_cost=2).limit
    others = [
        spec(max_gpu_seconds=3.5),
        spec(max_gpu_seconds=3.5, max_cost=3),
        spec(name="g", max_gpu_seconds=3.5, max_cost=2),
    ]
    assert len({found.limit.name, *(each.limit.name for each in others)}) == 4
    assert changed(found, Options({"max_cost": 2}), b"another run").limit.name != found.limit.name
    # It is no other function for that.
    assert function_id(found) == function_id(spec())
    deployed = _deployed(found, "elsewhere")
    assert deployed.limit == Limit("", 3_500_000, 2_000_000)
    assert _deployed(spec(), "elsewhere").limit is None


def test_a_limit_of_one_call_has_no_name():
    assert limited((None, None)) is None
    assert limited((1, None)) == Limit("", 1_000_000)
    with pytest.raises(InvalidError, match="max_cost"):
        limited((None, 0))


def test_numbers_of_workers_are_changed_one_by_one():
    assert scaled(Scaling(1, 4, 0, 0, True), {"max_containers": 2, "scaledown_window": 3}) == Scaling(
        1, 2, 0, 3_000_000, True
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"cpu": (2, 1)}, {"cpu": (1,)}, {"cpu": True}, {"memory": (0, 10)}, {"ephemeral_disk": 0},
        {"startup_timeout": 0}, {"timeout": "5"}, {"min_containers": -1}, {"max_containers": 0},
        {"min_containers": 3, "max_containers": 2}, {"scaledown_window": 1}, {"scaledown_window": 3600},
        {"region": [""]}, {"labels": {"a": 1}}, {"secrets": ["A"]},
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_once(settings):
    with pytest.raises(InvalidError):
        potluck.App("tests").function(**settings)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_a_mesh_cannot_have_is_refused_with_a_reason(name):
    app = potluck.App("tests")
    with pytest.raises(InvalidError, match=name) as caught:
        app.function(**{name: {"a": "b"}})
    assert caught.value.why == REFUSED[name]
    for nothing in (None, {}, False):
        app.function(**{name: nothing})


@pytest.mark.parametrize("name", sorted(RENAMED))
def test_old_names_tell_the_new_one(name):
    with pytest.raises(InvalidError, match="Modal has renamed it") as caught:
        potluck.App("tests").function(**{name: 1})
    assert RENAMED[name] in str(caught.value)


def test_a_mistyped_name_is_set_right():
    with pytest.raises(InvalidError, match="Did you mean memory="):
        potluck.App("tests").function(memroy=3)
    with pytest.raises(InvalidError, match=r"There are: .*cpu"):
        potluck.App("tests").function(zzzz=3)
    assert not RENAMED.keys() & KNOWN


@pytest.mark.parametrize(
    "ask",
    [
        lambda: potluck.concurrent(),
        lambda: potluck.concurrent(max_inputs=0),
        lambda: potluck.concurrent(max_inputs=2, target_inputs=3),
        lambda: potluck.batched(max_batch_size=0, wait_ms=1),
        lambda: potluck.batched(max_batch_size=1001, wait_ms=1),
        lambda: potluck.batched(max_batch_size=2, wait_ms=-1),
        lambda: potluck.batched(max_batch_size=2, wait_ms=10**6),
        lambda: potluck.App("a").function(single_use_containers=True)(potluck.concurrent(max_inputs=2)(lambda x: x)),
        lambda: potluck.concurrent(max_inputs=2)(potluck.App("a").function()(f)),
        lambda: potluck.concurrent(max_inputs=2)(potluck.concurrent(max_inputs=3)(lambda x: x)),
    ],
)
def test_sharing_that_cannot_be_is_refused(ask):
    with pytest.raises(InvalidError):
        ask()


def test_generators_cannot_be_batched():
    def generate(xs):
        yield from xs

    with pytest.raises(InvalidError, match="generator"):
        potluck.batched(max_batch_size=2, wait_ms=1)(generate)
    with pytest.raises(InvalidError, match="generator"):
        potluck.App("tests").function()(generate).with_batching(max_batch_size=2, wait_ms=1)


def test_options_stay_with_the_caller():
    options = Options({"secrets": [potluck.Secret.from_dict({"A": "secret value"})], "cpu": 3})
    sent = pickle.dumps(options)
    assert b"secret value" not in sent
    assert pickle.loads(sent).given == {}


def test_an_app_takes_over_another():
    one, other = potluck.App("one"), potluck.App("other")
    function = other.function()(f)

    @other.cls()
    class Model:
        @potluck.method()
        def get(self):
            return 1

    assert one.include(other) is one
    assert function.app is one
    assert Model().get.app is one
    assert one.registered_functions == {"f": function}
    with pytest.raises(InvalidError, match="two functions named f"):
        one.include(other)


def test_in_a_sandbox_a_remote_call_needs_a_worker(monkeypatch):
    monkeypatch.setenv("POTLUCK_SANDBOX", "1")
    assert not potluck.is_local()
    with pytest.raises(InvalidError, match="cannot be used here"):
        potluck.App("tests").function()(f).remote(1)
    monkeypatch.delenv("POTLUCK_SANDBOX")
    assert potluck.is_local()
