"""Several inputs in one worker, batches, warm workers, generators, zygotes and turns between callers."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.meshnode.core.test_provider import Provider
from tests.meshnode.core.worlds import spec

from potluck.wire import Scaling, Sharing
from potluck.wire.lease import Input, InputDone, InputItem, LeaseGranted
from potluck_node.core import provider_events as ev
from potluck_node.core import room, staff

MS = 1_000


def shared(**sharing):
    return replace(spec(), sharing=Sharing(**sharing))


class Machine(Provider):
    """Workers come up at once; what they run is remembered."""

    def __init__(self, **capacity):
        super().__init__(**capacity)
        self.runs, self.spawned = [], []

    def send(self, event):
        actions = super().send(event)
        self.runs += self.all(ev.Run)
        for spawn in self.all(ev.SpawnWorker):
            self.spawned.append((spawn.pool, spawn.worker))
        return actions

    def up(self):
        spawned, self.spawned = self.spawned, []
        for pool, worker in spawned:
            self.send(ev.WorkerUp(pool, worker))
        return [worker for _, worker in spawned]

    def open(self, function, lease="l1", caller="cas"):
        self.ask(lease, caller=caller, function=function)
        pool = self.only(ev.PreparePool).pool
        self.send(ev.PoolReady(pool, 100))
        return pool

    def give(self, *numbers, lease="l1"):
        for number in numbers:
            self.send(ev.InputCame(lease, Input(number, 1, b"payload")))


def test_one_worker_runs_inputs_side_by_side_and_they_share_its_bill():
    machine = Machine(cpu_milli=1000)
    pool = machine.open(shared(max_inputs=4))
    machine.give(1, 2)
    (worker,) = machine.up()
    assert [run.numbers for run in machine.runs] == [(1,), (2,)]
    machine.now_us += 10 * MS
    machine.succeed(pool, worker, 1)
    assert machine.posts(InputDone) == [InputDone(1, 1, 5 * MS, payload=b"result")]
    machine.now_us += 10 * MS
    machine.succeed(pool, worker, 2)
    assert machine.posts(InputDone) == [InputDone(2, 1, 15 * MS, payload=b"result")]
    machine.send(ev.LeaseGone("l1", "done"))
    assert machine.only(ev.SettleLease).meter.run_us == 20 * MS


def test_slots_count_inputs_and_a_worker_takes_no_more_than_its_own():
    machine = Machine(cpu_milli=2000)
    machine.ask(function=shared(max_inputs=3))
    assert machine.posts(LeaseGranted)[0].slots == 6
    machine.send(ev.PoolReady(machine.only(ev.PreparePool).pool))
    machine.give(*range(1, 9))
    machine.up()
    assert len(machine.runs) == 6


def test_a_second_worker_is_started_at_the_target_and_the_first_takes_more_meanwhile():
    machine = Machine(cpu_milli=2000)
    machine.open(shared(max_inputs=4, target_inputs=2))
    machine.give(1)
    machine.up()
    machine.give(2, 3, 4)
    assert len(machine.spawned) == 1
    assert len(machine.runs) == 4


def test_cancelling_one_of_several_leaves_the_worker_alive_until_nobody_waits_for_it():
    machine = Machine(cpu_milli=1000)
    pool = machine.open(shared(max_inputs=2))
    machine.give(1, 2)
    (worker,) = machine.up()
    machine.send(ev.InputDropped("l1", 1, "cancelled"))
    assert machine.only(ev.StopInput).number == 1
    assert machine.posts(InputDone)[0].lost == "cancelled"
    assert not machine.all(ev.KillWorker)
    machine.succeed(pool, worker, 2)
    assert machine.posts(InputDone)[0].payload == b"result"
    assert machine.only(ev.KillWorker).worker == worker


def test_a_worker_that_dies_with_several_inputs_loses_them_all_so_that_they_run_again():
    machine = Machine(cpu_milli=1000)
    pool = machine.open(shared(max_inputs=2))
    machine.give(1, 2)
    (worker,) = machine.up()
    machine.send(ev.WorkerGone(pool, worker, "killed by signal 11"))
    assert all("killed by signal 11" in done.lost for done in machine.posts(InputDone))
    assert len(machine.posts(InputDone)) == 2


def test_a_full_batch_runs_at_once_and_a_smaller_one_when_its_time_is_over():
    machine = Machine(cpu_milli=1000)
    pool = machine.open(shared(batch_size=3, batch_wait_us=50 * MS))
    machine.give(1, 2, 3, 4)
    (worker,) = machine.up()
    assert [(run.numbers, run.together) for run in machine.runs] == [((1, 2, 3), True)]
    for number in (1, 2, 3):
        machine.succeed(pool, worker, number)
    assert machine.core.wake_us == machine.now_us + 50 * MS
    machine.now_us += 50 * MS
    machine.send(ev.Tick())
    assert machine.runs[-1].numbers == (4,)


def test_a_worker_that_is_used_once_is_not_used_twice():
    machine = Machine(cpu_milli=1000)
    pool = machine.open(replace(spec(), scaling=Scaling(single_use=True)))
    machine.give(1, 2)
    (worker,) = machine.up()
    machine.succeed(pool, worker, 1)
    assert machine.only(ev.StopWorker).worker == worker
    machine.send(ev.WorkerGone(pool, worker, "left"))
    (second,) = machine.up()
    assert machine.runs[-1].worker == second


def test_a_caller_keeps_workers_up_and_bounds_them():
    machine = Machine(cpu_milli=4000)
    machine.open(spec())
    machine.send(ev.LeaseScaled("l1", 2, 3))
    assert len(machine.up()) == 2
    machine.give(*range(1, 9))
    assert len(machine.up()) == 1
    for pool, worker in [(run.pool, run.worker) for run in machine.runs]:
        machine.succeed(pool, worker, 1)
    machine.send(ev.LeaseScaled("l1", 1, 0))
    assert len(machine.up()) == 1, "without a bound there is room for one more"


def test_workers_rest_but_for_those_that_the_caller_wants():
    machine = Machine(cpu_milli=4000)
    machine.open(replace(spec(), scaling=Scaling(scaledown_us=5_000_000)))
    machine.send(ev.LeaseScaled("l1", 2, 0))
    workers = machine.up()
    machine.send(ev.LeaseScaled("l1", 1, 0))
    machine.now_us += 5_000_000
    machine.send(ev.Tick())
    assert machine.only(ev.StopWorker).worker == workers[0]


def test_a_pause_ends_the_wish_for_warm_workers():
    machine = Machine(cpu_milli=4000)
    pool = machine.open(spec())
    machine.send(ev.LeaseScaled("l1", 1, 0))
    (worker,) = machine.up()
    machine.send(ev.Paused("owner returned"))
    machine.send(ev.WorkerGone(pool, worker, "left"))
    assert not machine.spawned
    machine.send(ev.Resumed())
    assert not machine.spawned
    # The lease ended with the pause: whoever wants warm workers asks again.
    machine.ask("l2", function=spec())
    machine.send(ev.LeaseScaled("l2", 1, 0))
    assert len(machine.spawned) == 1


def test_standing_by_takes_no_room_that_an_input_waits_for():
    """Else the room of each worker that ends for the input is taken by the next one that stands by, and so on."""
    machine = Machine(cpu_milli=2000)
    small = machine.open(replace(spec(), name="small", resources=replace(spec().resources, cpu_milli=1000)))
    machine.send(ev.LeaseScaled("l1", 2, 0))
    standing = machine.up()
    large = machine.open(replace(spec(), name="large", resources=replace(spec().resources, cpu_milli=2000)), "l2")
    machine.give(1, lease="l2")
    for _ in standing:
        stopped = machine.only(ev.StopWorker)
        assert stopped.pool == small
        machine.send(ev.WorkerGone(small, stopped.worker, "idle"))
    assert [pool for pool, _ in machine.spawned] == [large]
    (worker,) = machine.up()
    machine.succeed(large, worker, 1)
    assert not machine.spawned
    machine.send(ev.WorkerGone(large, worker, "idle"))
    assert [pool for pool, _ in machine.spawned] == [small, small]


def test_what_a_generator_yields_goes_to_its_lease_and_into_its_account():
    machine = Machine()
    pool = machine.open(replace(spec(), generator=True))
    machine.give(7)
    (worker,) = machine.up()
    machine.send(ev.ItemCame(pool, worker, 1, 0, b"first"))
    assert machine.posts(InputItem) == [InputItem(7, 1, 0, b"first")]
    machine.send(ev.ItemCame(pool, worker, 99, 0, b"of nothing"))
    assert not machine.posts(InputItem)


def test_zygotes_without_workers_are_kept_within_the_budget():
    machine = Machine(memory_mib=1 << 14)
    budget = machine.core._capacity.zygote_mib
    for number in range(budget // 500 + 1):
        machine.ask(f"l{number}", function=spec(name=f"f{number}"))
        machine.send(ev.PoolReady(machine.only(ev.PreparePool).pool, 500))
        machine.send(ev.LeaseGone(f"l{number}", "done"))
        machine.now_us += 1
    assert len(machine.core.warm()) == budget // 500
    assert machine.only(ev.ClosePool).pool == "pool-1"


def test_a_caller_that_waits_gets_its_share_of_a_busy_node():
    machine = Machine(cpu_milli=2000)
    pool = machine.open(spec())
    machine.give(*range(1, 9))
    first, _ = machine.up()
    other = machine.open(spec(), "l2", "dan")
    machine.give(1, lease="l2")
    machine.succeed(pool, first, 1)
    assert machine.only(ev.StopWorker).worker == first
    machine.send(ev.WorkerGone(pool, first, "left"))
    assert [each[0] for each in machine.spawned] == [other]


def test_callers_take_turns_on_a_single_worker():
    machine = Machine(cpu_milli=1000)
    pool = machine.open(spec())
    machine.give(*range(1, 99))
    (worker,) = machine.up()
    machine.succeed(pool, worker, 1)
    other = machine.open(spec(), "l2", "dan")
    machine.give(1, lease="l2")
    machine.succeed(pool, worker, 2)
    assert not machine.all(ev.StopWorker), "its turn is not over"
    machine.now_us += room.TURN_US
    machine.succeed(pool, worker, 3)
    assert machine.only(ev.StopWorker).worker == worker
    machine.send(ev.WorkerGone(pool, worker, "left"))
    assert [each[0] for each in machine.spawned] == [other]
    machine.up()
    assert machine.runs[-1].pool == other


def test_an_idle_caller_keeps_its_lease_no_longer_than_its_workers():
    machine = Machine()
    pool = machine.open(spec())
    machine.give(1)
    (worker,) = machine.up()
    machine.succeed(pool, worker, 1)
    machine.now_us += staff.IDLE_US
    machine.send(ev.Tick())
    machine.send(ev.WorkerGone(pool, worker, "left"))
    machine.send(ev.Tick())
    assert machine.only(ev.SettleLease).reason == "idle"
    assert machine.core.warm()


@given(st.lists(st.tuples(st.sampled_from(["give", "end", "drop", "wait"]), st.integers(0, 9)), max_size=40))
def test_inputs_side_by_side_are_never_billed_more_than_the_worker_ran(steps):
    machine = Machine(cpu_milli=1000)
    pool = machine.open(shared(max_inputs=3))
    machine.give(0)
    (worker,) = machine.up()
    started_us, given, billed = machine.now_us, 0, 0
    for step, amount in steps:
        machine.actions = []
        if step == "give":
            given += 1
            machine.give(given)
        elif step == "wait":
            machine.now_us += 7 * amount
        elif step == "drop":
            machine.send(ev.InputDropped("l1", amount, "cancelled"))
        else:
            machine.succeed(pool, worker, amount)
        billed += sum(done.run_us for done in machine.posts(InputDone))
        if machine.all(ev.KillWorker):
            break
    assert billed <= machine.now_us - started_us
