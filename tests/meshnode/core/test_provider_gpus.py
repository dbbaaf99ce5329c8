"""The provider's core with GPUs: who gets them, when they are free again, and what happens when one is lost."""

from dataclasses import replace

from tests.meshnode.core.test_provider import Provider
from tests.meshnode.core.worlds import needs

from potluck.wire.lease import CloseLease, Input, InputDone, LeaseGranted, LeaseRefused
from potluck.wire.offer import HELD, OFF, USED
from potluck_node.core import provider_events as ev
from potluck_node.core.gpu_meter import GpuSample
from potluck_node.core.gpus import Gpu

GPUS = (Gpu("GPU-1", "NVIDIA A10G", 23028, 22000), Gpu("GPU-2", "NVIDIA A10G", 23028, 22000))
ANY, BOTH = needs(gpu=("any",)), needs(gpu=("A10G:2",))


def provider(*gpus):
    made = Provider(cpu_milli=8000)
    made.send(ev.GpusSeen(gpus or GPUS))
    return made


def spawned(made, lease="l1", function=ANY, inputs=1, caller="cas"):
    """A ready pool and what is spawned in it."""
    made.ask(lease, function=function, caller=caller)
    pool = made.only(ev.PreparePool).pool
    found = made.send(ev.PoolReady(pool))
    for number in range(1, inputs + 1):
        found = [*found, *made.send(ev.InputCame(lease, Input(number, 1, b"payload")))]
    return pool, [action for action in found if isinstance(action, ev.SpawnWorker)]


def states(made):
    return [gpu.state for gpu in made.core.gpus.offers(made.core.room.idle_workers())]


def test_two_workers_get_different_gpus_and_a_third_input_waits():
    made = provider()
    pool, spawns = spawned(made, inputs=3)
    assert [spawn.gpus for spawn in spawns] == [("GPU-1",), ("GPU-2",)]
    assert states(made) == ["leased", "leased"]
    for spawn in spawns:
        made.send(ev.WorkerUp(pool, spawn.worker))
    made.succeed(pool, spawns[0].worker)
    assert made.only(ev.Run).worker == spawns[0].worker


def test_as_many_slots_are_granted_as_there_are_gpus():
    made = provider()
    made.ask(function=ANY)
    assert made.posts(LeaseGranted)[0].slots == 2
    made = provider()
    made.ask(function=BOTH)
    assert made.posts(LeaseGranted)[0].slots == 1


def test_a_gpu_is_free_only_when_the_sandbox_is_gone():
    made = provider(GPUS[0])
    pool, (spawn,) = spawned(made)
    made.send(ev.WorkerUp(pool, spawn.worker))
    made.send(ev.Paused("the owner is back", now=True))
    assert states(made) == ["leased"]
    made.send(ev.Resumed())
    made.ask("l2", caller="dan", function=ANY)
    assert made.posts(LeaseRefused)[0].reason == "busy"
    assert made.posts(LeaseRefused)[0].failure.why == "its GPUs are leased"
    made.send(ev.PoolGone(pool))
    assert states(made) == ["free"]
    assert made.all(ev.OfferChanged)


def test_an_idle_worker_of_another_caller_makes_room():
    made = provider(GPUS[0])
    pool, (spawn,) = spawned(made)
    made.send(ev.WorkerUp(pool, spawn.worker))
    made.succeed(pool, spawn.worker)
    assert states(made) == ["free"]
    other, spawns = spawned(made, "l2", caller="dan")
    assert spawns == []
    assert made.only(ev.StopWorker).worker == spawn.worker
    made.send(ev.WorkerGone(pool, spawn.worker, "its room was needed"))
    again = made.only(ev.SpawnWorker)
    assert (again.pool, again.gpus) == (other, ("GPU-1",))


def test_an_idle_worker_without_gpus_is_not_ended_for_one():
    made = provider(GPUS[0])
    pool, worker = made.ready()
    made.succeed(pool, worker)
    _, spawns = spawned(made, "l2", caller="dan", inputs=2)
    assert len(spawns) == 1
    assert not made.all(ev.KillWorker)


def test_a_lost_gpu_ends_its_worker_and_the_input_is_lost_with_the_reason():
    made = provider()
    pool, (spawn,) = spawned(made)
    made.send(ev.WorkerUp(pool, spawn.worker))
    made.now_us += 700
    made.send(ev.GpusSeen((replace(GPUS[0], state="has fallen off the bus"), GPUS[1])))
    (done,) = made.posts(InputDone)
    assert (done.run_us, done.lost) == (700, "its GPU NVIDIA A10G (GPU-1) has fallen off the bus")
    assert made.only(ev.KillWorker).worker == spawn.worker
    assert states(made) == ["has fallen off the bus", "free"]
    made.send(ev.InputCame("l1", Input(2, 1, b"again")))
    assert made.only(ev.SpawnWorker).gpus == ("GPU-2",)


def test_refusals_say_what_is_the_matter_with_the_gpus():
    made = provider(replace(GPUS[0], state="has fallen off the bus"))
    made.ask(function=ANY)
    refused = made.posts(LeaseRefused)[0]
    assert (refused.reason, refused.failure.why) == ("gpu", "its NVIDIA A10G has fallen off the bus")
    made = provider(replace(GPUS[0], state="used by the owner"))
    made.ask(function=ANY)
    refused = made.posts(LeaseRefused)[0]
    assert (refused.reason, refused.failure.why) == ("busy", "a GPU is used by the owner")
    made = Provider()
    made.ask(function=ANY)
    assert made.posts(LeaseRefused)[0].reason == "gpu"


def test_nonsense_from_a_peer_is_refused():
    made = provider()
    for gpu in (("",), ("A10G:0",), ("any:>=99999999999GB",), ("any",) * 99):
        made.ask(function=needs(gpu=gpu))
        assert made.posts(LeaseRefused)[0].reason == "function"


def test_what_a_lease_used_is_settled_with_it():
    made = provider()
    pool, (spawn,) = spawned(made)
    made.send(ev.WorkerUp(pool, spawn.worker))
    made.send(ev.GpuSampled(GpuSample("GPU-1", made.now_us, energy_mj=0)))
    made.now_us += 1_000_000
    made.send(ev.GpuSampled(GpuSample("GPU-1", made.now_us, energy_mj=80, workers={spawn.worker: 250})))
    made.succeed(pool, spawn.worker)
    made.send(ev.LeaseGone("l1", "done"))
    use = made.only(ev.SettleLease).gpu
    assert (use.occupied_us, use.busy_us, use.energy_mj) == (1_000_000, 250_000, 80)


def test_a_start_that_fails_gives_the_gpu_back():
    made = provider(GPUS[0])
    pool, (spawn,) = spawned(made)
    made.send(ev.WorkerGone(pool, spawn.worker, "no such device"))
    assert made.only(ev.SpawnWorker).gpus == ("GPU-1",)


def test_a_worker_that_takes_more_than_its_share_is_ended_and_the_caller_told():
    made = Provider(cpu_milli=8000, gpu_share=True)
    made.send(ev.GpusSeen(GPUS[:1]))
    pool, spawns = spawned(made, inputs=2, function=needs(gpu=("any:4GiB",)))
    assert [spawn.gpus for spawn in spawns] == [("GPU-1",), ("GPU-1",)]
    for spawn in spawns:
        made.send(ev.WorkerUp(pool, spawn.worker))
    made.send(ev.LimitBroken(spawns[0].worker, "too much", gpu_mib=9000))
    (done,) = made.posts(InputDone)
    assert done.failure.kind == "resource-exceeded"
    assert "9000 MiB" in done.failure.what
    assert made.only(ev.KillWorker).worker == spawns[0].worker
    made.send(ev.LimitBroken(spawns[0].worker, "too much", gpu_mib=9000))
    assert made.actions == []


def blocked(*uuids, end=(), state=HELD):
    return ev.GpusBlocked(tuple((uuid, state) for uuid in uuids), frozenset(end))


def test_what_the_owner_holds_back_is_neither_offered_nor_leased():
    made = provider(GPUS[0])
    made.send(blocked("GPU-1"))
    assert states(made) == [HELD]
    assert made.only(ev.OfferChanged)
    made.ask(function=ANY)
    refused = made.posts(LeaseRefused)[0]
    assert (refused.reason, refused.failure.why) == ("busy", "a GPU is held back by the owner")
    made.send(blocked("GPU-1", state=OFF))
    made.ask("l2", function=ANY)
    refused = made.posts(LeaseRefused)[0]
    assert (refused.reason, refused.failure.why) == ("gpu", "its NVIDIA A10G is not lent by its owner")
    made.send(blocked())
    assert states(made) == ["free"]


def test_what_runs_on_a_gpu_has_its_grace_then_its_lease_ends_with_the_reason():
    made = provider(GPUS[0])
    pool, (spawn,) = spawned(made)
    made.send(ev.WorkerUp(pool, spawn.worker))
    made.send(blocked("GPU-1", state=USED))
    assert states(made) == [USED]
    assert not made.all(ev.KillWorker)
    made.now_us += 700
    made.send(blocked("GPU-1", state=USED, end=["GPU-1"]))
    (done,) = made.posts(InputDone)
    why = "its GPU NVIDIA A10G is used by the owner"
    assert (done.run_us, done.lost) == (700, why)
    assert made.posts(CloseLease) == [CloseLease(why)]
    assert made.only(ev.SettleLease).reason == why
    assert made.only(ev.KillWorker).worker == spawn.worker
    made.send(ev.WorkerGone(pool, spawn.worker, why))
    assert states(made) == [USED]
    assert not made.all(ev.SpawnWorker)


def test_a_lease_with_another_gpu_goes_on_there():
    made = provider()
    pool, (spawn,) = spawned(made)
    made.send(ev.WorkerUp(pool, spawn.worker))
    made.send(blocked("GPU-1", end=["GPU-1"]))
    assert made.posts(InputDone)[0].lost
    assert made.posts(CloseLease) == []
    made.send(ev.InputCame("l1", Input(2, 1, b"again")))
    assert made.only(ev.SpawnWorker).gpus == ("GPU-2",)


def test_whoever_sits_at_the_machine_keeps_a_gpu():
    made = provider(GPUS[0])
    pool, (spawn,) = spawned(made, caller=made.core._us)
    made.send(ev.WorkerUp(pool, spawn.worker))
    made.send(blocked("GPU-1", end=["GPU-1"]))
    assert made.posts(InputDone) == []
    assert not made.all(ev.KillWorker)


def test_a_lost_gpu_says_so_though_the_owner_holds_it_back():
    made = provider(GPUS[0])
    made.send(blocked("GPU-1"))
    made.send(ev.GpusSeen((replace(GPUS[0], state="has fallen off the bus"),)))
    assert states(made) == ["has fallen off the bus"]
