import pytest
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
