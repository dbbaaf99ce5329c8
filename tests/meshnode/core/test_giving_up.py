import pytest
from msgspec.structs import replace
from tests.meshnode.core.test_calls import BUSY, Caller
from tests.meshnode.core.worlds import offer

from potluck_node.core import calls as limits
from potluck_node.core import events as ev
from potluck_node.core import hiring
from potluck_node.core.giving_up import UNREACHED_US

US = "us-us-us-us"


def lose(caller, why="connection refused"):
    """Whoever is being asked cannot be reached; our own machine is busy."""
    seen = []
    for opened in caller.all(ev.OpenLease):
        ours = opened.peer == US
        seen += caller.send(ev.LeaseDenied(opened.lease, "busy", BUSY) if ours else ev.LeaseLost(opened.lease, why))
    caller.actions = seen
    return seen


def lose_all(caller, duration_us):
    """As long as this nobody can be reached. Returns what was done, and when the last of it was."""
    end_us, seen, last_us = caller.now_us + duration_us, [], caller.now_us
    while True:
        while any(isinstance(each, ev.OpenLease) for each in caller.actions):
            seen += lose(caller)
            last_us = caller.now_us
        wake_us = caller.core.wake_us
        if wake_us is None or wake_us > end_us:
            caller.actions = []
            return seen, last_us
        seen += caller.wait(max(1, wake_us - caller.now_us))


def test_who_cannot_be_reached_is_said_while_it_is_tried_again():
    caller = Caller("ann", "bob")
    caller.call()
    lose(caller)
    assert "asking" in caller.only(ev.Notice).text  # the other one
    lose(caller)
    notice = caller.only(ev.Notice)
    assert notice.state == "queued"
    assert "2 peers have it, none of which can be reached: connection refused; see `potluck doctor`" in notice.text
    caller.wait(limits.BUSY_RETRY_US)
    assert "could not be reached: connection refused" in caller.only(ev.Notice).text


def test_a_call_fails_when_all_who_could_run_it_were_out_of_reach_for_half_a_minute():
    caller = Caller("ann", "bob")
    caller.call()
    begun_us = caller.now_us
    seen, ended_us = lose_all(caller, 2 * UNREACHED_US)
    (failure,) = [each.failure for each in seen if isinstance(each, ev.Deliver)]
    assert UNREACHED_US <= ended_us - begun_us < UNREACHED_US + 5_000_000
    assert failure.kind == "no-peer"
    assert "2 peers have 1 CPU" in failure.what
    assert "ann: connection refused" in failure.why
    assert "potluck doctor" in failure.fix


def test_a_peer_that_answers_in_between_is_waited_for():
    caller = Caller("ann")
    caller.call()
    for _ in range(3):
        seen, _ = lose_all(caller, UNREACHED_US - 5_000_000)
        assert not [each for each in seen if isinstance(each, ev.Deliver)]
        caller.wait(limits.BUSY_RETRY_US)
        caller.send(ev.LeaseDenied(caller.only(ev.OpenLease).lease, "busy", BUSY))
        caller.wait(limits.BUSY_RETRY_US)


def test_a_machine_that_worked_has_half_a_minute_to_come_back_though_others_never_answered():
    caller = Caller("ann", "bob")
    caller.call()
    worked = caller.only(ev.OpenLease)
    caller.wait(hiring.SLOW_US)
    (other,) = {"ann", "bob"} - {worked.peer}
    caller.send(ev.LeaseAccepted(worked.lease, 1))
    sent = caller.only(ev.SendInput)
    caller.send(ev.InputBegan(worked.lease, sent.input, "w"))
    for name, peer, _, _ in list(caller.core.leases()):
        if peer == other:
            caller.send(ev.LeaseLost(name, "connection refused"))
    caller.wait(10 * UNREACHED_US)
    caller.renew()
    caller.send(ev.LeaseLost(worked.lease, "unplugged"))
    lost_us = caller.now_us
    seen, ended_us = lose_all(caller, 2 * UNREACHED_US)
    assert [each.failure.kind for each in seen if isinstance(each, ev.Deliver)] == ["no-peer"]
    assert ended_us - lost_us >= UNREACHED_US


def test_who_works_for_another_function_is_reached():
    """So many streams with a peer may be open, and no more."""
    caller = Caller("ann")
    caller.lease()
    caller.send(ev.CallOpened("d", replace(caller.function, qualname="other")))
    caller.send(ev.InputAdded("d", 0, b"x"))
    seen, _ = lose_all(caller, 3 * UNREACHED_US)
    assert len(seen) > 20
    assert not [each for each in seen if isinstance(each, ev.Deliver)]


@pytest.mark.parametrize("state", ["open", "paused"])
def test_who_is_there_but_busy_or_paused_is_waited_for(state):
    caller = Caller("ann", own=offer(US, state=state, cpu_free_milli=0))
    caller.call()
    seen, _ = lose_all(caller, 3 * UNREACHED_US)
    assert not [each for each in seen if isinstance(each, ev.Deliver)]


def test_others_are_asked_while_one_takes_long_to_answer():
    caller = Caller("ann", "bob", "cid")
    caller.call()
    first = caller.only(ev.OpenLease).peer
    caller.wait(hiring.SLOW_US)
    assert caller.only(ev.OpenLease).peer != first


MIB = 1 << 20


def add(caller, *sizes, call="c"):
    """A call with inputs of so many MiB."""
    caller.send(ev.CallOpened(call, caller.function))
    opened = []
    for index, size in enumerate(sizes):
        caller.send(ev.InputAdded(call, index, bytes(size * MIB)))
        opened += caller.all(ev.OpenLease)
    caller.send(ev.InputsEnded(call))
    return {each.peer: each.lease for each in opened + caller.all(ev.OpenLease)}


def sent_to(caller):
    return {each.lease: len(each.payload) // MIB for each in caller.all(ev.SendInput)}


def test_an_input_too_large_for_a_relay_goes_to_who_is_reached_directly():
    caller = Caller("ann", "bob")
    (first,) = add(caller, 3).values()
    caller.send(ev.LeaseAccepted(first, 1, carries=2 * MIB))
    assert not caller.all(ev.SendInput)
    other = caller.only(ev.OpenLease).lease
    caller.send(ev.LeaseAccepted(other, 1))
    assert sent_to(caller) == {other: 3}


def test_what_is_small_enough_goes_through_the_relay_past_what_is_not():
    caller = Caller("ann")
    (lease,) = add(caller, 3, 1, 3, 1).values()
    caller.send(ev.LeaseAccepted(lease, 1, carries=2 * MIB))
    assert sent_to(caller) == {lease: 1}
    caller.finish(lease, caller.only(ev.SendInput))
    assert sent_to(caller) == {lease: 1}


def test_an_input_that_gets_to_nobody_fails_soon_and_says_why():
    caller = Caller("ann", "bob")
    (first,) = add(caller, 3).values()
    caller.send(ev.LeaseAccepted(first, 1, carries=MIB))
    second = caller.only(ev.OpenLease).lease
    caller.send(ev.LeaseAccepted(second, 1, carries=2 * MIB))
    assert not caller.all(ev.Deliver)
    for lease in (first, second):
        caller.send(ev.LeaseWarm(lease))
    assert "none to whom 3 MiB get" in caller.only(ev.Notice).text
    caller.wait(hiring.NO_PEER_GRACE_US + 1)
    delivered = caller.only(ev.Deliver)
    assert (delivered.index, delivered.failure.kind) == (0, "no-peer")
    assert "3 MiB" in delivered.failure.what
    assert "2 MiB" in delivered.failure.why


def test_who_is_reached_directly_and_busy_is_waited_for():
    caller = Caller("ann", own=offer(US, cpu_free_milli=0))
    (lease,) = add(caller, 3).values()
    caller.send(ev.LeaseAccepted(lease, 1, carries=2 * MIB))
    for _ in range(30):
        for opened in caller.all(ev.OpenLease):
            caller.send(ev.LeaseDenied(opened.lease, "busy", BUSY))
        seen = caller.wait(limits.BUSY_RETRY_US)
        assert not [each for each in seen if isinstance(each, ev.Deliver)]


@pytest.mark.parametrize("carries", [2, 4])
def test_no_copy_of_a_large_input_is_sent_through_a_relay(carries):
    caller = Caller("ann", "bob")
    (first,) = add(caller, 3, 3, 1).values()
    caller.wait(hiring.SLOW_US)
    second = caller.only(ev.OpenLease).lease
    caller.send(ev.LeaseAccepted(first, 2))
    assert len(caller.all(ev.SendInput)) == 2
    # Where they do not begin.
    caller.send(ev.LeaseAccepted(second, 2, carries=carries * MIB))
    small = caller.only(ev.SendInput)
    caller.send(ev.InputBegan(second, small.input, "w"))
    caller.finish(second, small)
    seen = caller.actions + caller.wait(60_000_000)
    copies = [each.lease for each in seen if isinstance(each, ev.SendInput)]
    assert copies == [second] * (2 if carries > 3 else 0)
