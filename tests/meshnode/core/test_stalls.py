"""Who lets inputs run out of time while others answer is put off; what is too slow everywhere blames nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.meshnode.core.test_calls import Caller, wakes
from tests.meshnode.core.worlds import spec

from potluck.errors import FunctionTimeoutError, ResourceExceededError
from potluck.wire import Failure, RemoteException, RetryPolicy
from potluck.wire.lease import InputDone
from potluck_node.core import events as ev
from potluck_node.core import stalls
from potluck_node.core.demand import Input, Lease
from potluck_node.core.offers import OFFER_LIFE_US
from potluck_node.core.stalls import PUT_OFF_DOUBLED, PUT_OFF_FACTOR, PUT_OFF_MAX_US, SILENT_MAX, Stalls, ran_out

TIMEOUT_US = 30_000_000
FUNCTION = spec(timeout_us=TIMEOUT_US)
LATE = Failure.of(FunctionTimeoutError("It ran longer than its timeout."))
EATEN = Failure.of(ResourceExceededError("The worker ran out of memory."))
WELL = InputDone(1, 1, 1000, payload=b"")
OUT = InputDone(1, 1, TIMEOUT_US, failure=LATE)


class Watched(Stalls):
    """With shorthand: each line is one input of the function."""

    def answers(self, peer, item=None, function="f"):
        return self.ended(Lease(peer, function), item, WELL, FUNCTION)

    def stalls(self, peer, item=None, function="f"):
        return self.ended(Lease(peer, function), item, OUT, FUNCTION)


def item():
    return Input(1, "c", 0, b"")


def test_one_that_others_answer_is_doubtful_and_several_in_a_row_are_silent():
    known = Watched()
    known.answers("bob")
    assert not known.avoids("f", "eve")
    for _ in range(SILENT_MAX - 1):
        assert known.stalls("eve") == ["eve"]
        assert (known.is_doubtful("eve"), known.is_silent("eve")) == (True, False)
    known.stalls("eve")
    assert known.is_silent("eve")
    assert known.avoids("f", "eve")
    # Of another function nobody knows that anybody answers it.
    assert not known.avoids("g", "eve")


def test_what_ran_out_before_anybody_answered_counts_from_then_on():
    known = Watched()
    for _ in range(SILENT_MAX):
        assert known.stalls("eve") == []
    assert not known.is_doubtful("eve")
    assert not known.has_answered("eve")
    assert known.answers("bob") == ["eve"]


def test_an_answer_clears_a_peer():
    known = Watched()
    known.answers("bob")
    known.stalls("eve")
    known.stalls("eve")
    known.answers("eve")
    assert known.has_answered("eve")
    known.stalls("eve")
    assert not known.is_silent("eve")


def test_the_same_input_answered_elsewhere_is_enough():
    known, one = Watched(), item()
    assert known.stalls("eve", one) == []
    assert known.answers("bob", one) == ["eve"]
    assert not known.is_silent("eve")


def test_an_input_that_runs_out_everywhere_blames_nobody():
    known, one = Watched(), item()
    known.answers("max")
    for peer in ("eve", "bob"):
        known.stalls(peer, one)
        assert known.is_doubtful("eve") is (peer == "eve")
    assert not known.is_doubtful("bob")
    # What counts otherwise, goes on to count.
    known.stalls("eve")
    known.stalls("eve", two := item())
    known.stalls("bob", two)
    assert known.is_doubtful("eve")
    # Two that do so together are found out by a third.
    assert known.answers("ann", one) == ["eve", "bob"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("fgh")), max_size=60))
def test_functions_that_nobody_answers_blame_nobody(ends):
    known = Watched()
    assert [late for peer, function in ends for late in known.stalls(peer, function=function)] == []
    assert not any(known.is_doubtful(peer) for peer in "abcde")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80))
def test_nobody_is_silent_who_answered_within_the_last_few(ends):
    known, since = Watched(), dict.fromkeys("abc", 0)
    for peer, answers in ends:
        since[peer] = 0 if answers else since[peer] + 1
        late = known.answers(peer) if answers else known.stalls(peer)
        assert peer not in late or not answers
        assert not any(known.is_silent(each) and since[each] < SILENT_MAX for each in "abc")


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(stalls, "PEERS_MAX", 3)
    monkeypatch.setattr(stalls, "FUNCTIONS_MAX", 2)
    known = Watched()
    for number in range(9):
        known.answers("bob", function=f"f{number}")
        known.stalls(f"eve{number}", function=f"f{number}")
    assert [known.is_doubtful(f"eve{number}") for number in (5, 6, 8)] == [False, True, True]
    assert (known.answered_by("f6"), known.answered_by("f8")) == ((), ("bob",))


@pytest.mark.parametrize(
    ("done", "is_out"),
    [
        (OUT, True),
        (WELL, False),
        (replace(WELL, run_us=TIMEOUT_US), False),
        # Whatever its provider calls it, if it was paid for as long.
        (replace(OUT, failure=EATEN), True),
        (replace(OUT, failure=EATEN, run_us=1000), False),
        (InputDone(1, 1, TIMEOUT_US, exception=RemoteException("E", "e", "")), False),
        (InputDone(1, 1, TIMEOUT_US, lost="owner returned"), False),
    ],
)
def test_what_is_taken_for_running_out(done, is_out):
    assert ran_out(done, FUNCTION) is is_out


def test_who_is_put_off_is_asked_again_within_an_hour():
    known = Watched()
    known.answers("bob")
    known.stalls("eve")
    assert known.put_off_us("eve", FUNCTION) == PUT_OFF_FACTOR * TIMEOUT_US
    known.stalls("eve")
    assert known.put_off_us("eve", FUNCTION) == 2 * PUT_OFF_FACTOR * TIMEOUT_US
    assert known.put_off_us("eve", replace(FUNCTION, timeout_us=86_400_000_000)) == PUT_OFF_MAX_US


# In the call core


def callers(*peers, **changes):
    return Caller(*peers, function=replace(FUNCTION, **changes))


def runs_out(caller, lease, sent):
    caller.now_us += TIMEOUT_US
    caller.renew()
    return caller.finish(lease, sent, failure=LATE, run_us=TIMEOUT_US)


def answered_by(caller, peer):
    """One call, which this peer answers."""
    caller.call(name=f"by {peer}")
    (opened,) = caller.all(ev.OpenLease)
    assert opened.peer == peer
    caller.send(ev.LeaseAccepted(opened.lease, 4))
    caller.finish(opened.lease, caller.only(ev.SendInput))


def with_eve(caller, inputs):
    """Bob has answered, and eve, who was not there then, has a lease of four workers."""
    answered_by(caller, "bob")
    caller.peers.append("eve")
    caller.renew()
    caller.call(inputs, name="map", ended=False)
    sent = caller.all(ev.SendInput)
    (opened,) = [each for each in caller.all(ev.OpenLease) if each.peer == "eve"]
    caller.send(ev.LeaseAccepted(opened.lease, 4))
    return opened.lease, sent, [each for each in caller.all(ev.SendInput) if each.lease == opened.lease]


def test_one_that_ran_out_leaves_a_single_input_at_a_time():
    caller = callers("bob")
    lease, _, sent = with_eve(caller, 60)
    assert len(sent) == 4
    runs_out(caller, lease, sent[0])
    assert not [each for each in caller.all(ev.SendInput) if each.lease == lease]


def test_one_that_ran_out_before_somebody_else_answered_leaves_a_single_input_too():
    caller = callers("ann", "bob")
    caller.call(60)
    slow, quick = caller.all(ev.OpenLease)
    held = [each for each in caller.send(ev.LeaseAccepted(slow.lease, 4)) if isinstance(each, ev.SendInput)]
    todo = [each for each in caller.send(ev.LeaseAccepted(quick.lease, 4)) if isinstance(each, ev.SendInput)]
    runs_out(caller, slow.lease, held[0])
    assert not caller.core._leases[slow.lease].doubtful
    caller.finish(quick.lease, todo[0])
    assert caller.core._leases[slow.lease].doubtful
    caller.finish(slow.lease, held[1])
    assert not caller.core._leases[slow.lease].doubtful


def test_who_is_silent_loses_its_leases_and_its_inputs_run_elsewhere():
    caller = callers("bob")
    lease, _, sent = with_eve(caller, 60)
    for each in sent[:SILENT_MAX]:
        caller.finish(lease, each, failure=LATE, run_us=TIMEOUT_US)
    ended = caller.only(ev.EndLease)
    assert (ended.lease, "run out of time" in ended.reason) == (lease, True)
    assert caller.core.input_of(sent[3].input)
    assert not [each for each in caller.all(ev.OpenLease) if each.peer == "eve"]
    # Not for good.
    wakes(caller, (PUT_OFF_FACTOR * TIMEOUT_US << PUT_OFF_DOUBLED) + 2_000_000)
    assert [peer for _, peer, _, _ in caller.core.leases() if peer == "eve"]


def test_who_is_put_off_is_asked_when_there_is_nobody_else():
    caller = callers("bob")
    lease, _, sent = with_eve(caller, 60)
    for each in sent[:SILENT_MAX]:
        caller.finish(lease, each, failure=LATE, run_us=TIMEOUT_US)
    assert caller.core._hiring.bans.left_us("eve", caller.now_us) > OFFER_LIFE_US
    caller.peers.remove("bob")
    (other,) = [name for name, peer, _, _ in caller.core.leases() if peer == "bob"]
    caller.send(ev.LeaseLost(other, "unplugged"))
    wakes(caller, OFFER_LIFE_US + 2_000_000)
    assert "eve" in [peer for _, peer, _, _ in caller.core.leases()]


def test_a_function_that_is_too_slow_everywhere_runs_everywhere():
    caller = callers("ann", "bob", retries=RetryPolicy(3, 1000))
    caller.call(8)
    leases = {each.lease: each.peer for each in caller.all(ev.OpenLease)}
    sent = [each for lease in leases for each in caller.send(ev.LeaseAccepted(lease, 4)) if type(each) is ev.SendInput]
    assert len(sent) == 8
    for each in sent:
        caller.finish(each.lease, each, failure=LATE, run_us=TIMEOUT_US)
    assert not any(caller.core._hiring.bans.left_us(peer, caller.now_us) for peer in leases.values())
    caller.wait(10_000)
    again = caller.all(ev.SendInput)
    assert {leases[each.lease] for each in again} == {"ann", "bob"}


def test_who_has_an_input_for_long_that_a_later_one_answers_is_doubtful_until_it_answers():
    caller = callers("ann", "bob")
    caller.call(6)
    slow, quick = caller.all(ev.OpenLease)
    (held,) = [each for each in caller.send(ev.LeaseAccepted(slow.lease, 1)) if isinstance(each, ev.SendInput)]
    caller.send(ev.InputBegan(slow.lease, held.input, "w"))
    todo = [each for each in caller.send(ev.LeaseAccepted(quick.lease, 1)) if isinstance(each, ev.SendInput)]
    while todo and todo[0].input != held.input:
        caller.send(ev.InputBegan(quick.lease, todo[0].input, "w"))
        caller.finish(quick.lease, todo.pop(0))
        todo += [each for each in (*caller.actions, *caller.wait(1_000_000)) if isinstance(each, ev.SendInput)]
    assert not caller.core._hiring.stalls.is_doubtful(slow.peer)
    caller.finish(quick.lease, todo[0])
    assert caller.core._hiring.stalls.is_doubtful(slow.peer)
    assert not caller.core._hiring.bans.left_us(slow.peer, caller.now_us)


def test_a_receipt_for_what_ran_out_says_nothing_good():
    caller = callers("ann")
    lease = caller.lease()
    sent = caller.only(ev.SendInput)
    assert caller.core.speaks_for("ann")
    runs_out(caller, lease, sent)
    assert not caller.core.speaks_for("ann")
    caller.call(name="next")
    caller.finish(lease, caller.only(ev.SendInput))
    assert caller.core.speaks_for("ann")
