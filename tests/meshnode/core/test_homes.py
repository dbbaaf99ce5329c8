"""Requests of one session have one worker as long as that lives, on whichever peer it is."""

from hypothesis import given
from hypothesis import strategies as st
from tests.meshnode.core.test_calls import BUSY, Caller
from tests.meshnode.core.test_provider_sharing import Machine
from tests.meshnode.core.worlds import spec

from potluck.wire import Sharing
from potluck.wire.common import Web
from potluck.wire.lease import Input
from potluck_node.core import events as ev
from potluck_node.core import homes
from potluck_node.core import provider_events as pev
from potluck_node.core.homes import Homes
from potluck_node.core.web import SESSION_BYTES_MAX, SESSIONS_MAX, Sessions, session

SITE = spec(web=Web("asgi", "site"))


def ask(caller, name, worker=""):
    """A request; returns what came of it."""
    seen = [*caller.send(ev.CallOpened(name, caller.function))]
    seen += caller.send(ev.InputAdded(name, 0, b"request", worker))
    caller.actions = [*seen, *caller.send(ev.InputsEnded(name))]
    return caller.actions


def test_a_request_goes_to_the_peer_of_its_worker_and_names_it():
    caller, leases = Caller("ann", "bob", function=SITE), {}
    for peer in ("ann", "bob"):
        caller.core._hiring.homes.note(f"{peer}-1", peer)
        opened = [each for each in ask(caller, peer, f"{peer}-1") if isinstance(each, ev.OpenLease)]
        leases |= {each.peer: each.lease for each in opened}
        caller.send(ev.LeaseAccepted(leases[peer], 9))
        assert [(sent.lease, sent.worker) for sent in caller.all(ev.SendInput)] == [(leases[peer], f"{peer}-1")]
    for number, peer in enumerate(("bob", "ann", "bob", "bob")):
        ask(caller, f"s{number}", f"{peer}-1")
        sent = caller.only(ev.SendInput)
        assert (sent.lease, sent.worker) == (leases[peer], f"{peer}-1")


def test_it_waits_for_a_lease_with_that_peer_and_goes_elsewhere_when_there_is_none():
    caller = Caller("ann", "bob", function=SITE)
    caller.core._hiring.homes.note("bob-1", "bob")
    ask(caller, "c", "bob-1")
    opened = {each.peer: each.lease for each in caller.all(ev.OpenLease)}
    assert "bob" in opened
    if "ann" in opened:
        caller.send(ev.LeaseAccepted(opened["ann"], 1))
        assert not caller.all(ev.SendInput)
    caller.send(ev.LeaseDenied(opened["bob"], "busy", BUSY))
    ann = opened.get("ann") or next(each.lease for each in caller.all(ev.OpenLease) if each.peer == "ann")
    caller.send(ev.LeaseAccepted(ann, 1))
    assert [(sent.lease, sent.worker) for sent in caller.all(ev.SendInput)] == [(ann, "")]


def test_a_worker_that_nobody_knows_is_any():
    caller = Caller("ann", function=SITE)
    ask(caller, "c", "nobody-1")
    caller.send(ev.LeaseAccepted(caller.only(ev.OpenLease).lease, 1))
    assert caller.only(ev.SendInput).worker == ""


def machine_with_two_workers():
    machine = Machine(cpu_milli=2000)
    pool = machine.open(spec(web=Web("asgi", "site"), sharing=Sharing(max_inputs=1)))
    machine.give(1, 2)
    one, two = machine.up()
    return machine, pool, one, two


def give(machine, number, worker):
    machine.send(pev.InputCame("l1", Input(number, 1, b"request", worker=worker)))


def test_an_input_waits_for_its_worker_while_others_pass():
    machine, pool, one, two = machine_with_two_workers()
    by_worker = {run.worker: run.numbers for run in machine.runs}
    assert set(by_worker) == {one, two}
    machine.runs.clear()
    give(machine, 3, one)
    give(machine, 4, "")
    machine.succeed(pool, two, 1)
    assert [run.worker for run in machine.runs] == [two]
    machine.succeed(pool, one, 1)
    assert [run.worker for run in machine.runs] == [two, one]
    # Nobody is started for an input that waits for its worker.
    assert not machine.spawned


def test_a_worker_that_is_gone_is_any():
    machine, pool, one, two = machine_with_two_workers()
    machine.runs.clear()
    give(machine, 3, one)
    machine.send(pev.WorkerGone(pool, one, "killed"))
    machine.succeed(pool, two, 1)
    machine.up()
    assert machine.runs


def test_sessions_are_named_by_a_header_or_a_cookie():
    assert session(((b"Potluck-Session", b"abc"),)) == b"abc"
    assert session(((b"cookie", b"a=b; potluck-session=xyz"), (b"cookie", b"c=d"))) == b"xyz"
    assert session(((b"cookie", b"other-potluck-session=xyz"),)) == b""
    assert session(((b"potluck-session", b"x" * (SESSION_BYTES_MAX + 1)),)) == b""


def test_the_newest_sessions_are_remembered():
    sessions = Sessions()
    for number in range(SESSIONS_MAX + 1):
        sessions.note("app/f", b"%d" % number, f"w{number}")
    assert sessions.worker("app/f", b"0") == ""
    assert sessions.worker("app/f", b"1") == "w1"
    assert sessions.worker("app/g", b"1") == ""
    sessions.note("app/f", b"", "w")
    assert sessions.worker("app/f", b"") == ""


@given(st.lists(st.tuples(st.integers(0, homes.WORKERS_MAX + 10), st.sampled_from("abc")), max_size=50))
def test_homes_are_the_last_ones_seen(notes):
    found, known = Homes(), {}
    for worker, peer in notes:
        found.note(f"w{worker}", peer)
        known[f"w{worker}"] = peer
    assert all(found.of(worker) == peer for worker, peer in known.items())
    found.forget("a")
    assert all(found.of(worker) == ("" if peer == "a" else peer) for worker, peer in known.items())
