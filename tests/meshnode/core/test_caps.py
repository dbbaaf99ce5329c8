"""What several callers together may have of a machine, and who comes first by priority."""

from tests.meshnode.core.test_asks import ONE, full, lab, two_waiting

from potluck.wire.lease import Input, LeaseGranted, LeaseRefused
from potluck_node.core import provider_events as ev
from potluck_node.core.room import Cap
from potluck_node.quota_gate import OWNER_SHARE, STEP

STUDENTS = frozenset({"ann", "bob"})


def capped(cpu_milli):
    provider = lab()
    caps = [Cap("students", STUDENTS, cpu_milli, 0)]
    provider.core.room.caps = lambda caller: caps if caller in STUDENTS else []
    return provider


def test_a_group_has_no_more_than_its_limit_and_others_do():
    provider = capped(0)
    provider.ask("l1", "ann", ONE)
    (refused,) = provider.posts(LeaseRefused)
    assert "students may have no more" in refused.failure.why
    provider.ask("l2", "eve", ONE)
    assert provider.posts(LeaseGranted)


def test_all_of_a_group_count_together():
    provider = capped(1000)
    full(provider, "ann")
    provider.ask("l2", "bob", ONE)
    assert provider.posts(LeaseRefused)


def test_priority_decides_whatever_was_used():
    assert two_waiting(ann=1900 - STEP, bob=0) == "ann"
    assert two_waiting(ann=0, bob=1900 - STEP) == "bob"
    assert two_waiting(ann=STEP, bob=1900) == "bob"
    assert two_waiting(ann=-100 * STEP, bob=OWNER_SHARE) == "bob"


def test_workers_that_become_free_go_to_who_has_priority():
    for shares, gives in (({"ann": -STEP}, 1), ({"eve": -STEP}, 0), ({}, 0)):
        provider = lab(**shares)
        provider.ready("l1", inputs=1, caller="eve", function=ONE)
        provider.send(ev.InputCame("l1", Input(2, 1, b"payload")))
        assert provider.core.room.due("ann", ONE, provider.now_us) == gives
