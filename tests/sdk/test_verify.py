"""What of verification runs in the calling program."""

import dataclasses
import math

import numpy
import pytest

import potluck
from potluck import calls, serialize, verify
from potluck.errors import ExecutionError, InvalidError
from potluck.runner import plain
from potluck.wire import spawned
from potluck.wire import verify as messages

INPUT = serialize.dumps(((9.0,), {"scale": 2}), "input")


def judged(how, *values, leading=0):
    return verify.judge(how, (INPUT, *map(plain.dumps, values)), leading)


def test_the_numbers_are_those_of_the_wire():
    for name in ("REPLICAS_MAX", "CANARIES_MAX", "CANARY_BYTES_MAX"):
        assert getattr(verify, name) == getattr(messages, name)


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("none", (1, 1, False)),
        ("adaptive", (2, 5, True)),
        ("quorum:2of3", (2, 3, False)),
        ("quorum:5of9", (5, 9, False)),
    ],
)
def test_modes_are_read(mode, found):
    assert verify.parsed(mode) == found


@pytest.mark.parametrize("mode", ["", "quorum", "quorum:1of3", "quorum:3of2", "quorum:2of10", "always"])
def test_what_is_no_mode_is_refused_with_what_is(mode):
    with pytest.raises(InvalidError, match="is no way") as raised:
        potluck.Verify(mode)
    assert "quorum:2of3" in raised.value.fix


@pytest.mark.parametrize(
    "given", [{"rtol": -1}, {"canary_rate": 2}, {"canaries": [(1, 1)] * 101}, {"check": lambda: True}]
)
def test_what_makes_no_sense_is_refused(given):
    with pytest.raises(InvalidError):
        potluck.Verify(**given)


def test_only_results_that_are_compared_can_be_verified():
    app = potluck.App("a")
    with pytest.raises(InvalidError, match="says nothing"):
        app.function(verify=3)(lambda: 1)
    with pytest.raises(InvalidError, match="cannot be verified"):

        @app.function(verify="adaptive")
        def items():
            yield 1


@pytest.mark.parametrize(
    ("how", "asks"),
    [
        ("adaptive", False),
        (potluck.Verify("quorum:2of3", same_gpu_class=True), False),
        (potluck.Verify(rtol=1e-3), True),
        (potluck.Verify(check=lambda inputs, result: True), True),
    ],
)
def test_of_a_spawned_call_a_program_is_asked_where_bytes_do_not_say(how, asks):
    app = potluck.App("a")
    function = app.function(verify=how, name="f")(lambda: 1)
    rule, judge = calls._verified(function)
    assert (rule.judged, judge is not None) == (asks, asks)
    assert calls._verified(app.function(name="g")(lambda: 1)) == (None, None)


def test_what_is_verified_is_not_spawned_where_a_stranger_could_say_how(monkeypatch):
    monkeypatch.setattr(calls, "is_local", lambda: False)
    function = potluck.App("a").function(verify="adaptive", name="f")(lambda: 1)
    with pytest.raises(InvalidError, match="inside of a function"):
        calls._verified(function)


class Node:
    """What answers a program that waits for a spawned call: results to compare first, then the outcome."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def ask(self, make, kind):
        self.asked.append(make(1))
        if isinstance(self.asked[-1], spawned.SpawnedJudged):
            return spawned.Spawned(1, "fc-1", "a.f", 1, 0)
        return self.answers.pop(0)


def test_who_waits_for_a_spawned_call_compares_on_the_way(monkeypatch):
    def compare(payloads):
        if payloads == (b"bad",):
            raise ExecutionError("no")
        return len(payloads)

    asked = [
        spawned.JudgeSpawned(1, "fc-1", number, payloads) for number, payloads in ((8, (b"x", b"y")), (9, (b"bad",)))
    ]
    node = Node(*asked, spawned.SpawnedOutcome(1, 0))
    monkeypatch.setattr(calls, "_client", lambda: node)
    with pytest.raises(TimeoutError, match="no result yet"):
        calls.FunctionCall("fc-1", compare).get(timeout=5)
    judged = [each for each in node.asked if isinstance(each, spawned.SpawnedJudged)]
    assert [(each.number, each.agrees) for each in judged] == [(8, 2), (9, -1)]
    assert [each.failure is None for each in judged] == [True, False]
    waits = [each for each in node.asked if isinstance(each, spawned.AwaitOutcome)]
    assert all(each.judges and 0 < each.timeout_us <= 5_000_000 for each in waits)


@dataclasses.dataclass
class Point:
    x: float
    y: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1.0, 1.0 + 1e-7, True),
        (1.0, 1.1, False),
        (1, 1.0, False),
        (math.nan, math.nan, True),
        (math.inf, -math.inf, False),
        ([1.0, {"a": (2.0, "x")}], [1.0 + 1e-7, {"a": (2.0, "x")}], True),
        ([1.0], [1.0, 2.0], False),
        ({"a": 1}, {"b": 1}, False),
        (1 + 2j, 1 + 2.0000001j, True),
        (Point(1.0, (1,)), Point(1.0000001, (1,)), True),
        (Point(1.0, (1,)), Point(1.0, (2,)), False),
        (numpy.array([1.0, numpy.nan]), numpy.array([1.0 + 1e-7, numpy.nan]), True),
        (numpy.array([1.0]), numpy.array([1.0], "f4"), False),
        (numpy.array([1, 2]), numpy.array([1, 3]), False),
        ({1, 2}, {2, 1}, True),
    ],
)
def test_values_are_the_same_within_the_tolerance(one, other, same):
    assert verify.equal(one, other, rtol=1e-6) is same


def test_the_judge_names_the_first_that_agrees():
    assert judged(potluck.Verify(atol=0.5), 1.0, 9.0, 1.4, 1.2) == 1
    assert judged(potluck.Verify(), 1.0, 9.0, 1.4) == -1


def test_a_check_of_two_sees_the_inputs():
    seen = []

    def check(inputs, one, other):
        seen.append((inputs.args, inputs.kwargs, one, other))
        return True

    assert judged(potluck.Verify(check=check), 3.0, 4.0) == 0
    assert seen == [((9.0,), {"scale": 2}, 3.0, 4.0)]


def test_a_check_of_one_is_asked_without_others():
    how = potluck.Verify(check=lambda inputs, result: result**2 == inputs.args[0])
    assert how.single
    assert (judged(how, 3.0), judged(how, 4.0)) == (0, -1)


def test_what_a_check_raises_becomes_an_error_that_says_so():
    with pytest.raises(ExecutionError, match="raised") as raised:
        judged(potluck.Verify(check=lambda inputs, one, other: 1 / 0), 1.0, 2.0)
    assert "ZeroDivisionError" in raised.value.why


def test_a_function_of_which_nothing_is_known_tells_the_node_how_it_is_verified():
    how = potluck.Verify("adaptive", canaries=[(3, 9), ((4,), 16)], canary_rate=0.5, same_gpu_class=True)
    function = potluck.App("a").function(verify=how, name="f")(lambda x: x * x)
    found = verify.prepared(function).wire
    assert (found.needed, found.most, found.adaptive, found.same_gpu, found.canary_milli) == (2, 5, True, True, 500)
    assert [serialize.loads(each.payload) for each in found.canaries] == [((3,), {}), ((4,), {})]
    assert [each.expected for each in found.canaries] == [plain.dumps(9), plain.dumps(16)]
    assert verify.prepared(function) is verify.prepared(function)


def test_a_canary_whose_result_is_no_data_is_refused():
    how = potluck.Verify(canaries=[(1, object())])
    with pytest.raises(InvalidError, match="cannot be used"):
        verify.to_wire(how, lambda args, kwargs: b"")


def test_equal_sets_are_equal_bytes():
    # They collide, so that a set has them in the order in which they came.
    one, other = {0}, {16}
    one |= {8}
    one |= {16}
    other |= {8}
    other |= {0}
    assert list(one) != list(other)
    assert plain.dumps(one) == plain.dumps(other)
    assert plain.dumps({frozenset({"a", "b"}), frozenset({"c"})}) == plain.dumps({frozenset("c"), frozenset("ba")})
