"""`max_gpu_seconds` and `max_cost`: what would go beyond is stopped in time, and what comes later is not begun."""

import msgspec
import pytest
from tests.meshnode.core.test_calls import Caller
from tests.meshnode.core.worlds import needs

from potluck.wire.control import Limit
from potluck.wire.offer import GpuOffer
from potluck_node.core import events as ev
from potluck_node.core.budgets import BUDGETS_MAX, Budgets

S = 1_000_000


def begin(limit, inputs=3, slots=1, function=None, **offered):
    """A map under a limit, of which the first inputs run."""
    caller = Caller("ann", function=function)
    if offered:
        known = caller.book.offers["ann"]
        caller.book.offers["ann"] = msgspec.structs.replace(known, **offered)
        caller.peers = []
    caller.send(ev.CallOpened("c", caller.function, limit))
    for index in range(inputs):
        caller.send(ev.InputAdded("c", index, b"x"))
        opened = caller.all(ev.OpenLease) or None
        caller.lease_name = opened[0].lease if opened else caller.lease_name
    caller.send(ev.InputsEnded("c"))
    caller.send(ev.LeaseAccepted(caller.lease_name, slots))
    caller.sent = caller.all(ev.SendInput)
    for each in caller.sent:
        caller.send(ev.InputBegan(caller.lease_name, each.input, "w"))
    return caller


def stopped(caller):
    return [each.failure.kind for each in caller.all(ev.Deliver) if each.failure]


def test_what_runs_is_stopped_when_the_limit_is_reached_and_not_before():
    caller = begin(Limit("l", lease_us=10 * S))
    caller.wait(10 * S - 100_000)
    assert not caller.all(ev.Deliver)
    caller.wait(200_000)
    assert stopped(caller) == ["limit-exceeded"] * 3
    assert caller.only(ev.AbortInput).input == caller.sent[0].input
    assert caller.only(ev.CallEnded).call == "c"
    assert "max_gpu_seconds=10" in caller.all(ev.Deliver)[0].failure.what


def test_what_ended_counts_as_its_provider_says():
    caller = begin(Limit("l", lease_us=10 * S))
    caller.finish(caller.lease_name, caller.sent[0], run_us=6 * S, payload=b"result")
    again = caller.only(ev.SendInput)
    caller.finish(caller.lease_name, again, run_us=6 * S, payload=b"result")
    # The result that was paid for is delivered.
    assert [each.payload for each in caller.all(ev.Deliver)] == [b"result", None]
    assert stopped(caller) == ["limit-exceeded"]


def test_inputs_side_by_side_count_each():
    caller = begin(Limit("l", lease_us=10 * S), slots=3)
    caller.wait(3 * S)
    assert not caller.all(ev.Deliver)
    caller.wait(S)
    assert stopped(caller) == ["limit-exceeded"] * 3


def test_calls_with_one_limit_share_it_and_later_ones_do_not_begin():
    caller = begin(Limit("l", lease_us=10 * S), inputs=1)
    caller.finish(caller.lease_name, caller.sent[0], run_us=10 * S)
    caller.send(ev.CallOpened("d", caller.function, Limit("l", lease_us=10 * S)))
    caller.send(ev.InputAdded("d", 0, b"x"))
    assert stopped(caller) == ["limit-exceeded"]
    assert not caller.all(ev.SendInput)
    caller.send(ev.InputsEnded("d"))
    assert caller.only(ev.CallEnded).call == "d"
    caller.send(ev.CallOpened("e", caller.function, Limit("other", lease_us=S)))
    caller.send(ev.InputAdded("e", 0, b"x"))
    assert caller.all(ev.SendInput)


def test_what_a_lost_machine_ran_counts():
    caller = begin(Limit("l", lease_us=10 * S), inputs=1)
    caller.wait(9 * S)
    caller.send(ev.LeaseLost(caller.lease_name, "gone"))
    (budget,) = caller.core.budgets._budgets.values()
    assert budget.spent_us == 9 * S


def test_cost_is_weighed_by_where_it_runs():
    gpu = GpuOffer("GPU-1", "NVIDIA A100", 40_000, 40_000)
    caller = begin(Limit("l", cost=10 * S), inputs=1, function=needs(gpu=("A100",)), gpus=(gpu,))
    caller.core.weighs = lambda model: 4000 if "A100" in model else 1000
    caller.send(ev.Tick())
    caller.wait(2 * S)
    assert not caller.all(ev.Deliver)
    caller.wait(S)
    assert stopped(caller) == ["limit-exceeded"]


@pytest.mark.parametrize("limit", [None, Limit("l")])
def test_without_a_limit_nothing_is_stopped(limit):
    caller = begin(limit)
    caller.wait(1000 * S)
    assert not stopped(caller)
    assert not caller.core.budgets


def test_limits_are_remembered_within_bounds():
    budgets = Budgets(lambda lease: 1000)
    for number in range(BUDGETS_MAX + 5):
        budgets.of(Limit(f"l{number}", lease_us=1))
    assert len(budgets._budgets) == BUDGETS_MAX
