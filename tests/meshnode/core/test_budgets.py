"""`max_gpu_seconds` and `max_cost`: what would go beyond is stopped in time, and what comes later is not begun."""

import msgspec
import pytest
from tests.meshnode.core.test_calls import Caller
from tests.meshnode.core.worlds import needs

from potluck.wire.common import Limit
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
    (budget,) = caller.core.budgets._named.values()
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
        budgets.opened(ev.CallOpened(f"c{number}", needs(), Limit(f"l{number}", lease_us=1)), {})
        budgets.closed(f"c{number}")
    assert len(budgets._named) == BUDGETS_MAX
    assert not budgets


def limited(name="", seconds=10):
    return msgspec.structs.replace(needs(), limit=Limit(name, lease_us=seconds * S))


def test_the_limit_of_a_function_holds_whoever_calls_it():
    caller = begin(None, inputs=1, function=limited())
    caller.wait(9 * S)
    assert not stopped(caller)
    caller.wait(2 * S)
    assert stopped(caller) == ["limit-exceeded"]


def test_what_was_spent_before_a_restart_counts():
    caller = Caller("ann", function=limited())
    caller.send(ev.CallOpened("c", caller.function, spent=(8 * S, 0)))
    caller.send(ev.InputAdded("c", 0, b"x"))
    lease = caller.all(ev.OpenLease)[0].lease
    caller.send(ev.LeaseAccepted(lease, 1))
    sent = caller.only(ev.SendInput)
    caller.send(ev.InputBegan(lease, sent.input, "w"))
    caller.finish(lease, sent, run_us=1 * S, payload=b"x")
    assert caller.core.budgets.spent("c") == {"c": (9 * S, 1 * S)}
    caller.send(ev.CallOpened("d", caller.function, spent=(10 * S, 0)))
    caller.send(ev.InputAdded("d", 0, b"x"))
    assert stopped(caller) == ["limit-exceeded"]
    assert caller.core.budgets.spent("unknown") == {}


def test_a_limit_without_a_name_is_for_each_call():
    caller = begin(None, inputs=1, function=limited())
    caller.finish(caller.lease_name, caller.sent[0], run_us=9 * S)
    caller.send(ev.CallOpened("d", caller.function))
    caller.send(ev.InputAdded("d", 0, b"x"))
    sent = caller.only(ev.SendInput)
    caller.send(ev.InputBegan(caller.lease_name, sent.input, "w"))
    caller.wait(9 * S)
    assert not stopped(caller)
    caller.wait(2 * S)
    assert stopped(caller) == ["limit-exceeded"]
    assert not caller.core.budgets._named


def test_a_limit_of_one_call_takes_the_place_of_the_functions():
    caller = begin(Limit("", lease_us=20 * S), inputs=1, function=limited("f"))
    caller.wait(19 * S)
    assert not stopped(caller)
    caller.wait(2 * S)
    assert stopped(caller) == ["limit-exceeded"]


def nest(caller, asked, limit=None, call="n", function=None):
    """What runs calls another function, which runs as well."""
    inner = function or msgspec.structs.replace(caller.function, qualname="inner", limit=None)
    caller.send(ev.CallOpened(call, inner, limit, asked))
    caller.send(ev.InputAdded(call, 0, b"x"))
    opened = caller.all(ev.OpenLease)
    if not opened:
        return ""
    lease = opened[0].lease
    caller.send(ev.InputsEnded(call))
    caller.send(ev.LeaseAccepted(lease, 1))
    caller.send(ev.InputBegan(lease, caller.only(ev.SendInput).input, "w2"))
    return lease


@pytest.mark.parametrize("known", [True, False])
def test_what_a_function_calls_counts_for_the_call_that_it_runs_in(known):
    """Also where a worker does not say which of its inputs asks: that is no way around the limit."""
    caller = begin(Limit("", lease_us=10 * S), inputs=1)
    number = caller.sent[0].input if known else 0
    nest(caller, (caller.lease_name, number))
    caller.wait(4 * S)
    assert not stopped(caller)
    caller.wait(2 * S)
    assert sorted(each.call for each in caller.all(ev.Deliver)) == ["c", "n"]
    assert stopped(caller) == ["limit-exceeded"] * 2


def test_what_was_called_counts_when_it_is_over():
    caller = begin(Limit("", lease_us=10 * S), inputs=1)
    lease = nest(caller, (caller.lease_name, caller.sent[0].input))
    (number,) = caller.core._leases[lease].inputs
    caller.finish(lease, ev.SendInput(lease, number, 1, b"x", False, ""), run_us=8 * S, payload=b"result")
    assert caller.only(ev.Deliver).payload == b"result"
    caller.wait(1 * S)
    assert not stopped(caller)
    caller.wait(2 * S)
    assert stopped(caller) == ["limit-exceeded"]


def test_a_function_called_by_another_keeps_its_own_limit_and_that_of_the_call():
    caller = begin(None, inputs=1)
    asked = caller.lease_name, caller.sent[0].input
    inner = msgspec.structs.replace(caller.function, qualname="inner", limit=Limit("", lease_us=5 * S))
    nest(caller, asked, Limit("", lease_us=50 * S), function=inner)
    caller.wait(6 * S)
    assert [each.call for each in caller.all(ev.Deliver)] == ["n"]
    assert stopped(caller) == ["limit-exceeded"]


def spawn(caller, lease, number, call="s", function=None):
    """What runs spawns another function, which runs as well. Returns the limits under which that is."""
    under = caller.core.limits_of((lease, number), lambda: f"shared by {call}")
    inner = function or msgspec.structs.replace(caller.function, qualname="inner", limit=None)
    caller.send(ev.CallOpened(call, inner, under=under))
    caller.send(ev.InputAdded(call, 0, b"x"))
    return under


def run(caller):
    """The worker of what was opened last begins."""
    lease = caller.all(ev.OpenLease)[0].lease
    caller.send(ev.LeaseAccepted(lease, 1))
    caller.send(ev.InputBegan(lease, caller.only(ev.SendInput).input, "w3"))
    return lease


def test_what_a_function_spawns_counts_for_its_call_also_when_that_is_over():
    caller = begin(Limit("", lease_us=10 * S), inputs=1)
    (under,) = spawn(caller, caller.lease_name, caller.sent[0].input)
    run(caller)
    assert under == (Limit("shared by s", lease_us=10 * S), 0, 0)
    caller.wait(2 * S)
    caller.finish(caller.lease_name, caller.sent[0], run_us=2 * S)
    assert caller.only(ev.CallEnded).call == "c"
    assert caller.core.budgets.spent("s")["shared by s"] == (2 * S, 2 * S)
    caller.wait(5 * S)
    assert not stopped(caller)
    caller.wait(2 * S)
    assert [each.call for each in caller.all(ev.Deliver)] == ["s"]
    assert stopped(caller) == ["limit-exceeded"]


def test_what_was_spawned_uses_up_the_limit_of_what_still_runs():
    caller = begin(Limit("", lease_us=10 * S), inputs=1)
    for call in ("s", "t"):
        spawn(caller, caller.lease_name, caller.sent[0].input, call)
        if caller.all(ev.OpenLease):
            run(caller)
    caller.wait(4 * S)
    assert not stopped(caller)
    caller.wait(2 * S)
    assert sorted(each.call for each in caller.all(ev.Deliver)) == ["c", "s", "t"]


def test_after_a_restart_what_was_spawned_is_still_under_one_limit():
    caller = Caller("ann")
    under = ((Limit("shared", lease_us=10 * S), 6 * S, 6 * S),)
    for call in ("s", "t"):
        caller.send(ev.CallOpened(call, caller.function, under=under))
        caller.send(ev.InputAdded(call, 0, b"x"))
        if caller.all(ev.OpenLease):
            lease = caller.all(ev.OpenLease)[0].lease
    caller.send(ev.LeaseAccepted(lease, 2))
    for each in caller.all(ev.SendInput):
        caller.send(ev.InputBegan(lease, each.input, "w"))
    caller.wait(1_900_000)
    assert not stopped(caller)
    caller.wait(200_000)
    assert stopped(caller) == ["limit-exceeded"] * 2


def test_a_function_that_spawns_itself_gathers_no_limits():
    caller = begin(None, inputs=1, function=limited(seconds=10))
    lease, number = caller.lease_name, caller.sent[0].input
    for call in "stuv":
        under = spawn(caller, lease, number, call, caller.function)
        assert [each[0].name for each in under] == ["shared by s"]
        caller.finish(lease, ev.SendInput(lease, number, 1, b"x", False, ""), run_us=3 * S, payload=b"result")
        if call == "v":
            break
        number = caller.only(ev.SendInput).input
        caller.send(ev.InputBegan(lease, number, "w"))
    assert stopped(caller) == ["limit-exceeded"]


def test_a_narrower_limit_of_what_spawns_holds_as_well():
    caller = begin(Limit("", lease_us=50 * S), inputs=1)
    lease = nest(caller, (caller.lease_name, caller.sent[0].input), Limit("", lease_us=5 * S))
    (number,) = caller.core._leases[lease].inputs
    under = spawn(caller, lease, number)
    assert [each[0].lease_us for each in under] == [5 * S, 50 * S]
