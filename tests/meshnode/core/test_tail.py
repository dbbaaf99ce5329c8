"""The end of a map, warm workers, and the limits that a caller sets: the call core over several leases."""

import pytest
from msgspec.structs import replace
from tests.meshnode.core.test_calls import Caller
from tests.meshnode.core.worlds import needs, offer, spec

from potluck.wire import Failure, Scaling
from potluck.wire.lease import InputDone, InputItem
from potluck_node.core import events as ev
from potluck_node.core import tail
from potluck_node.core.calls import LOSSES_MAX
from potluck_node.core.hiring import LINGER_US

MS = 1_000


class Two(Caller):
    """A map that runs on two peers."""

    def __init__(self, inputs=8, function=None, slots=1):
        super().__init__("ann", "bob", function=function)
        self.call(inputs)
        self.leases = {action.peer: action.lease for action in self.all(ev.OpenLease)}
        self.sent = {}
        for lease in self.leases.values():
            self.note(self.send(ev.LeaseAccepted(lease, slots)))

    def note(self, actions):
        for action in actions:
            if isinstance(action, ev.SendInput):
                self.sent.setdefault(action.lease, []).append(action)
        return actions

    def begin(self, lease):
        for action in self.sent[lease]:
            self.send(ev.InputBegan(lease, action.input, "w"))

    def work(self, lease, run_us=100 * MS):
        """Finish the oldest input of a lease."""
        sent = self.sent[lease].pop(0)
        self.now_us += run_us
        done = InputDone(sent.input, sent.attempt, run_us, payload=b"result")
        return self.note(self.send(ev.InputFinished(lease, done)))


def near_the_end():
    """All is done but one input, which runs on ann; bob is idle."""
    mesh = Two()
    ann, bob = mesh.leases["ann"], mesh.leases["bob"]
    mesh.begin(ann)
    while len(mesh.sent[bob]) and sum(map(len, mesh.sent.values())) > 1:
        mesh.begin(bob)
        mesh.work(bob)
    return mesh, ann, bob


def test_a_straggler_runs_a_second_time_elsewhere_and_the_first_outcome_counts():
    mesh, ann, bob = near_the_end()
    (straggler,) = mesh.sent[ann]
    hedged = mesh.note(mesh.wait(tail.HEDGE_MIN_US))
    (again,) = [action for action in hedged if isinstance(action, ev.SendInput)]
    assert (again.lease, again.input) == (bob, straggler.input)
    mesh.work(bob, 10 * MS)
    assert mesh.only(ev.Deliver).index == 0
    assert mesh.only(ev.AbortInput) == ev.AbortInput(ann, straggler.input, "it is over")
    mesh.send(ev.InputFinished(ann, InputDone(straggler.input, straggler.attempt, 1, payload=b"too late")))
    assert not mesh.all(ev.Deliver)


def test_a_failure_of_one_copy_leaves_the_other_its_chance():
    mesh, ann, bob = near_the_end()
    (straggler,) = mesh.sent[ann]
    mesh.note(mesh.wait(tail.HEDGE_MIN_US))
    mesh.send(ev.LeaseLost(ann, "unplugged"))
    assert not mesh.all(ev.SendInput)
    mesh.work(bob)
    assert mesh.only(ev.Deliver).payload == b"result"
    assert straggler.input not in mesh.core._inputs


@pytest.mark.parametrize("lost", ["", "its worker died"])
def test_an_input_that_fails_wherever_it_runs_ends(lost):
    """Each of two copies fails while the other runs."""
    mesh, ann, bob = near_the_end()
    failure = None if lost else Failure("timeout", "It ran too long.")
    mesh.actions, ended = [], 0
    while not mesh.all(ev.Deliver):
        for _ in range(2):
            mesh.begin(ann)
            mesh.begin(bob)
            mesh.note(mesh.wait(tail.HEDGE_MIN_US))
        lease = min((name for name in (ann, bob) if mesh.sent[name]), key=lambda name: mesh.sent[name][0].attempt)
        sent = mesh.sent[lease].pop(0)
        done = InputDone(sent.input, sent.attempt, 100 * MS, failure=failure, lost=lost)
        mesh.note(mesh.send(ev.InputFinished(lease, done)))
        ended += 1
        assert ended <= 2 * (LOSSES_MAX + 1), "it never ends"
    assert mesh.only(ev.Deliver).failure.kind == ("execution" if lost else "timeout")
    assert ended > 1


def test_generators_and_single_calls_never_run_twice():
    for function, inputs in ((replace(spec(), generator=True), 8), (spec(), 1)):
        mesh = Two(inputs, function)
        for lease in mesh.sent:
            mesh.begin(lease)
        while any(len(sent) > 1 for sent in mesh.sent.values()):
            lease = max(mesh.sent, key=lambda name: len(mesh.sent[name]))
            mesh.work(lease)
        assert not any(isinstance(action, ev.SendInput) for action in mesh.wait(60_000 * MS))


def test_what_waits_behind_a_long_input_is_moved_to_a_worker_that_is_free():
    mesh = Two(inputs=4, function=needs(cpu_milli=2000), slots=2)
    ann, bob = mesh.leases["ann"], mesh.leases["bob"]
    first, waiting = mesh.sent[ann]
    mesh.send(ev.InputBegan(ann, first.input, "w"))
    mesh.begin(bob)
    mesh.work(bob)
    mesh.work(bob)
    moved = mesh.wait(tail.MOVE_AFTER_US)
    assert ev.AbortInput(ann, waiting.input, "another worker is free") in moved
    assert [action.lease for action in moved if isinstance(action, ev.SendInput)] == [bob]
    mesh.send(ev.InputFinished(ann, InputDone(waiting.input, waiting.attempt, 0, lost="another worker is free")))
    assert not mesh.all(ev.SendInput), "the word about the moved one changes nothing"


def test_an_idle_lease_is_kept_while_it_may_have_to_help():
    mesh, _, bob = near_the_end()
    assert ev.EndLease(bob, "done") not in mesh.wait(LINGER_US)


def test_a_generator_that_runs_again_goes_on_where_it_stopped():
    caller = Caller("ann", function=replace(spec(), generator=True))
    lease = caller.lease()
    sent = caller.only(ev.SendInput)
    for item in range(2):
        caller.send(ev.ItemYielded(lease, InputItem(sent.input, 1, item, b"%d" % item)))
    assert caller.only(ev.DeliverItem) == ev.DeliverItem("c", 0, 1, b"1")
    caller.finish(lease, sent, lost="its worker died")
    again = caller.only(ev.SendInput)
    seen = []
    for item in range(3):
        caller.send(ev.ItemYielded(lease, InputItem(sent.input, again.attempt, item, b"%d" % item)))
        seen += caller.all(ev.DeliverItem)
    assert [each.item for each in seen] == [2]


def test_no_more_workers_are_used_than_the_caller_allows():
    caller = Caller("ann", "bob", function=replace(spec(), scaling=Scaling(max_containers=2)))
    caller.call(50)
    (opened,) = caller.all(ev.OpenLease)
    caller.send(ev.LeaseAccepted(opened.lease, 4))
    assert caller.only(ev.ScaleLease) == ev.ScaleLease(opened.lease, 0, 2)
    assert len(caller.all(ev.SendInput)) == 2
    assert not caller.all(ev.OpenLease)


def test_workers_are_kept_up_for_as_long_as_somebody_wants_them():
    kept = replace(spec(), scaling=Scaling(min_containers=3))
    caller = Caller("ann", "bob", function=kept)
    caller.send(ev.FunctionKept("app", kept))
    opened = caller.only(ev.OpenLease)
    caller.send(ev.LeaseAccepted(opened.lease, 2))
    assert caller.only(ev.ScaleLease) == ev.ScaleLease(opened.lease, 2, 0)
    other = caller.only(ev.OpenLease)
    caller.send(ev.LeaseAccepted(other.lease, 2))
    assert caller.only(ev.ScaleLease) == ev.ScaleLease(other.lease, 1, 0)
    assert not any(isinstance(action, ev.EndLease) for action in caller.wait(10 * LINGER_US))
    caller.send(ev.FunctionLeft("app"))
    ended = [*caller.actions, *caller.wait(2 * LINGER_US)]
    assert {action.lease for action in ended if isinstance(action, ev.EndLease)} == {opened.lease, other.lease}
    assert caller.core.wake_us is None


def test_scaling_is_changed_while_it_runs():
    caller = Caller("ann", function=replace(spec(), scaling=Scaling(max_containers=1)))
    caller.call(8)
    opened = caller.only(ev.OpenLease)
    caller.send(ev.LeaseAccepted(opened.lease, 4))
    assert len(caller.all(ev.SendInput)) == 1
    caller.send(ev.ScalingSet(caller.function, Scaling(max_containers=3)))
    assert len(caller.all(ev.SendInput)) == 2
    assert caller.core.stats(caller.function) == (8, 0)


def test_a_spare_worker_is_kept_beside_the_busy_ones():
    caller = Caller("ann", function=replace(spec(), scaling=Scaling(buffer_containers=1)))
    caller.call()
    opened = caller.only(ev.OpenLease)
    caller.send(ev.LeaseAccepted(opened.lease, 4))
    assert caller.all(ev.ScaleLease)[-1] == ev.ScaleLease(opened.lease, 2, 0)


def test_the_peer_that_ran_it_last_is_asked_first_again():
    caller = Caller("ann", "bob", "cy", "dan")
    lease = caller.lease()
    (peer,) = [each[1] for each in caller.core.leases()]
    caller.finish(lease, caller.only(ev.SendInput))
    caller.wait(2 * LINGER_US)
    assert not list(caller.core.leases())
    for number in range(5):
        caller.call(name=f"again-{number}")
        assert caller.only(ev.OpenLease).peer == peer
        caller.send(ev.LeaseAccepted(caller.only(ev.OpenLease).lease, 1))
        caller.finish(next(caller.core.leases())[0], caller.only(ev.SendInput))
        caller.wait(2 * LINGER_US)


def test_why_a_call_waits_is_told_peer_by_peer():
    caller = Caller("ann", "bob")
    caller.book.add(offer("tiny", cpu_milli=100), caller.now_us)
    caller.call()
    opened = caller.only(ev.OpenLease)
    lines = caller.core.would("c", caller.now_us)
    assert lines[0] == f"{opened.peer}: asking {opened.peer}"
    assert "would be asked next; it has room for 4" in lines[1]
    assert lines[2] == "tiny: cannot run it: it lends 0.1 CPUs"
