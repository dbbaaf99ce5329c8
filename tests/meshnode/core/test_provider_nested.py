"""Workers that wait for calls of their own lend their CPU, and get it back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace
from tests.meshnode.core.test_provider_sharing import Machine, shared
from tests.meshnode.core.worlds import spec

from potluck.wire.lease import Input, LeaseRefused
from potluck.wire.state import StateTold
from potluck_node.core import provider_events as ev
from potluck_node.core import staff

OUTER, INNER = spec(), replace(spec(), name="inner", qualname="inner")


def full():
    """A machine with one CPU, which `outer` has; returns its pool and worker, too."""
    machine = Machine(cpu_milli=1000)
    pool = machine.open(OUTER)
    machine.give(1)
    (worker,) = machine.up()
    return machine, pool, worker


def inner_of(machine, *numbers):
    pool = machine.open(INNER, lease="l2")
    machine.give(*numbers, lease="l2")
    return pool


def told(machine):
    return [(tell.worker, tell.message.number) for tell in machine.all(ev.Tell)]


def test_a_full_machine_refuses_until_its_worker_waits():
    machine, pool, worker = full()
    machine.ask("l2", function=INNER)
    assert machine.posts(LeaseRefused)
    machine.send(ev.CallAwaited(pool, worker, 7, 1))
    assert machine.all(ev.OfferChanged)
    inner_of(machine, 11)
    (other,) = machine.up()
    assert [run.numbers for run in machine.runs] == [(1,), (1,)]
    assert machine.runs[-1].worker == other


def test_the_answer_waits_for_cpu_and_goes_before_other_inputs():
    machine, pool, worker = full()
    machine.send(ev.CallAwaited(pool, worker, 7, 1))
    other_pool = inner_of(machine, 11, 12)
    (other,) = machine.up()
    machine.send(ev.AnswerCame(pool, worker, StateTold(7, b"result")))
    assert not told(machine)
    machine.succeed(other_pool, other, 1)
    assert told(machine) == [(worker, 7)]
    assert len(machine.runs) == 2, "the second input has to wait for the first function"
    machine.send(ev.CallAwaited(pool, worker, 8, 1))
    assert machine.runs[-1].worker == other, "the same worker goes on, none was ended"
    assert not machine.all(ev.StopWorker)


def test_an_answer_that_others_may_wait_for_is_told_at_once_or_soon():
    machine, pool, worker = full()
    machine.send(ev.CallAwaited(pool, worker, 7, 1))
    inner_of(machine, 11)
    machine.up()
    machine.send(ev.AnswerCame(pool, worker, StateTold(7, b"an item"), now=True))
    assert told(machine) == [(worker, 7)]
    machine.send(ev.CallAwaited(pool, worker, 8, 1))
    machine.send(ev.AnswerCame(pool, worker, StateTold(8, b"result")))
    assert not told(machine)
    machine.now_us += staff.RESUME_US
    assert machine.core.wake_us <= machine.now_us
    machine.send(ev.Tick())
    assert told(machine) == [(worker, 8)]


def test_an_input_waits_as_long_as_one_of_its_calls_is_open():
    machine, pool, worker = full()
    for ask in (7, 8):
        machine.send(ev.CallAwaited(pool, worker, ask, 1))
    inner_of(machine, 11)
    machine.up()
    machine.send(ev.AnswerCame(pool, worker, StateTold(7, b"result")))
    assert told(machine) == [(worker, 7)], "there is nothing to take back yet"
    machine.send(ev.AnswerCame(pool, worker, StateTold(8, b"result")))
    assert not told(machine)


def test_all_that_a_worker_runs_must_wait_before_it_lends_anything():
    machine = Machine(cpu_milli=1000)
    pool = machine.open(shared(max_inputs=2))
    machine.give(1, 2)
    (worker,) = machine.up()
    machine.send(ev.CallAwaited(pool, worker, 7, 1))
    machine.ask("l2", function=INNER)
    assert machine.posts(LeaseRefused)
    machine.send(ev.CallAwaited(pool, worker, 8, 2))
    inner_of(machine, 11)
    assert machine.up()


def test_who_asks_for_an_unknown_input_lends_nothing_and_is_told_at_once():
    machine, pool, worker = full()
    machine.send(ev.CallAwaited(pool, worker, 7, 0))
    machine.ask("l2", function=INNER)
    assert machine.posts(LeaseRefused)
    machine.send(ev.AnswerCame(pool, worker, StateTold(7, b"result")))
    assert told(machine) == [(worker, 7)]


def test_memory_stays_with_a_worker_that_waits():
    machine = Machine(cpu_milli=1000, memory_mib=2 * spec().resources.memory_mib - 1)
    pool = machine.open(OUTER)
    machine.give(1)
    (worker,) = machine.up()
    machine.send(ev.CallAwaited(pool, worker, 7, 1))
    machine.ask("l2", function=INNER)
    (refused,) = machine.posts(LeaseRefused)
    assert "wait for calls of their own: 1" in refused.failure.why


def test_a_worker_that_is_gone_is_told_nothing():
    machine, pool, worker = full()
    machine.send(ev.CallAwaited(pool, worker, 7, 1))
    other_pool = inner_of(machine, 11)
    (other,) = machine.up()
    machine.send(ev.AnswerCame(pool, worker, StateTold(7, b"result")))
    machine.send(ev.WorkerGone(pool, worker, "killed"))
    machine.succeed(other_pool, other, 1)
    assert not told(machine)


class Nesting(RuleBasedStateMachine):
    """Two functions on two CPUs, whose workers call and wait as they like."""

    def __init__(self):
        super().__init__()
        self.machine = Machine(cpu_milli=2000, memory_mib=1 << 20)
        self.pools = {"l1": self.machine.open(OUTER), "l2": ""}
        self.inputs = self.asks = 0
        self.waiting, self.answered = {}, {}
        self.machine.send(ev.Tick())

    def _spawned(self):
        self.machine.up()
        for tell in self.machine.all(ev.Tell):
            self.answered.pop((tell.worker, tell.message.number))

    def _running(self):
        pools = self.machine.core._pools.values()
        return [(pool, worker) for pool in pools for worker in pool.workers.values() if worker.items]

    @rule(lease=st.sampled_from(["l1", "l2"]))
    def give(self, lease):
        if not self.pools[lease]:
            self.machine.ask(lease, function=INNER)
            if self.machine.posts(LeaseRefused):
                return
            self.pools[lease] = self.machine.only(ev.PreparePool).pool
            self.machine.send(ev.PoolReady(self.pools[lease], 1))
        if self.inputs < 30:
            self.inputs += 1
            self.machine.send(ev.InputCame(lease, Input(self.inputs, 1, b"payload")))
            self._spawned()

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def wait(self, data):
        pool, worker = data.draw(st.sampled_from(self._running()))
        if any(name == worker.name for name, _ in [*self.waiting, *self.answered]):
            return
        self.asks += 1
        self.waiting[worker.name, self.asks] = pool.name
        self.machine.send(ev.CallAwaited(pool.name, worker.name, self.asks, next(iter(worker.items))))
        self._spawned()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def answer(self, data):
        worker, ask = data.draw(st.sampled_from(list(self.waiting)))
        pool = self.waiting.pop((worker, ask))
        self.answered[worker, ask] = pool
        self.machine.send(ev.AnswerCame(pool, worker, StateTold(ask, b"")))
        self._spawned()

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def finish(self, data):
        pool, worker = data.draw(st.sampled_from(self._running()))
        if not any(name == worker.name for name, _ in [*self.waiting, *self.answered]):
            self.machine.succeed(pool.name, worker.name, next(iter(worker.items)))
            self._spawned()

    @invariant()
    def no_more_works_at_once_than_there_is_cpu_for(self):
        assert sum(not worker.waits for _, worker in self._running()) <= 2

    @invariant()
    def nobody_waits_for_cpu_that_is_free(self):
        if self.answered:
            assert sum(not worker.waits for _, worker in self._running()) == 2


TestNesting = Nesting.TestCase
TestNesting.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
