import pytest
from tests.meshnode.core.worlds import NOW_US, needs, spec

from potluck.errors import SandboxError
from potluck.wire import PROTOCOL, Failure, Scaling, Sharing
from potluck.wire.lease import (
    CloseLease,
    Input,
    InputDone,
    InputStarted,
    LeaseGranted,
    LeaseReady,
    LeaseRefused,
    LeaseRequest,
)
from potluck.wire.worker import InputSucceeded
from potluck_node.core import provider as limits
from potluck_node.core import provider_events as ev
from potluck_node.core import staff
from potluck_node.core.provider import Capacity, ProviderCore

BROKEN = Failure.of(SandboxError("no bubblewrap"))


class Provider:
    """A provider's core with a clock and shorthand."""

    def __init__(self, cpu_milli=2000, memory_mib=4096, gpu_share=False, network=()):
        self.core = ProviderCore("mira", Capacity(cpu_milli, memory_mib, gpu_share=gpu_share, network=network))
        self.now_us = NOW_US
        self.actions = []

    def send(self, event):
        self.actions = self.core.handle(event, self.now_us)
        return self.actions

    def all(self, kind):
        return [action for action in self.actions if isinstance(action, kind)]

    def only(self, kind):
        (found,) = self.all(kind)
        return found

    def posts(self, kind):
        return [post.message for post in self.all(ev.Post) if isinstance(post.message, kind)]

    def ask(self, lease="l1", caller="cas", function=None, **changes):
        values = {"protocol": PROTOCOL, "now_us": self.now_us, "inputs_waiting": 1} | changes
        request = LeaseRequest(
            values["protocol"], lease, function or spec(), values["inputs_waiting"], values["now_us"]
        )
        return self.send(ev.LeaseAsked(lease, caller, request))

    def ready(self, lease="l1", inputs=1, **changes):
        """A lease with a pool that is up, a worker for each input, all running."""
        self.ask(lease, **changes)
        pool = self.only(ev.PreparePool).pool
        self.send(ev.PoolReady(pool))
        for number in range(1, inputs + 1):
            self.send(ev.InputCame(lease, Input(number, 1, b"payload")))
            worker = self.only(ev.SpawnWorker).worker
            self.send(ev.WorkerUp(pool, worker))
        return pool, worker

    def succeed(self, pool, worker, number=1, cpu_us=0):
        return self.send(ev.OutcomeCame(pool, worker, InputSucceeded(number, b"result", cpu_us)))


def test_a_lease_is_granted_prepared_and_runs_an_input():
    provider = Provider()
    provider.ask()
    assert provider.posts(LeaseGranted)[0].slots == 2
    pool = provider.only(ev.PreparePool).pool
    provider.send(ev.InputCame("l1", Input(1, 1, b"payload")))
    assert not provider.all(ev.SpawnWorker)
    provider.send(ev.PoolReady(pool))
    worker = provider.only(ev.SpawnWorker).worker
    provider.send(ev.WorkerUp(pool, worker))
    assert provider.posts(LeaseReady)
    assert provider.posts(InputStarted) == [InputStarted(1, 1, worker)]
    assert provider.only(ev.Run).payloads == (b"payload",)
    provider.now_us += 5000
    provider.succeed(pool, worker, cpu_us=4000)
    assert provider.posts(InputDone) == [InputDone(1, 1, 5000, payload=b"result")]


def test_the_bill_is_wall_time_on_workers_and_busy_never_exceeds_it():
    provider = Provider()
    pool, worker = provider.ready()
    provider.now_us += 1_000_000
    provider.succeed(pool, worker, cpu_us=99_000_000)
    provider.now_us += 7_000_000
    provider.send(ev.LeaseGone("l1", "done"))
    settled = provider.only(ev.SettleLease)
    assert (settled.meter.run_us, settled.meter.cpu_us, settled.meter.inputs) == (1_000_000, 1_000_000, 1)
    assert settled.reason == "done"


def test_the_next_lease_of_the_same_caller_and_function_finds_the_pool_warm():
    provider = Provider()
    pool, worker = provider.ready()
    provider.succeed(pool, worker)
    provider.send(ev.LeaseGone("l1", "done"))
    provider.ask("l2")
    assert not provider.all(ev.PreparePool)
    provider.send(ev.InputCame("l2", Input(1, 1, b"again")))
    assert provider.only(ev.Run).worker == worker


def test_another_caller_never_gets_the_same_sandbox():
    provider = Provider()
    pool, worker = provider.ready()
    provider.succeed(pool, worker)
    provider.ask("l2", caller="dan")
    assert provider.only(ev.PreparePool).pool != pool


def test_workers_never_exceed_what_is_lent_and_an_idle_one_makes_room():
    provider = Provider(cpu_milli=1000)
    pool, worker = provider.ready()
    provider.ask("l2", caller="dan")
    assert provider.posts(LeaseRefused)[0].reason == "busy"
    assert provider.only(ev.Hangup).lease == "l2"
    provider.succeed(pool, worker)
    provider.ask("l3", caller="dan")
    other = provider.only(ev.PreparePool).pool
    provider.send(ev.PoolReady(other))
    provider.send(ev.InputCame("l3", Input(1, 1, b"payload")))
    assert not provider.all(ev.SpawnWorker)
    assert provider.only(ev.StopWorker) == ev.StopWorker(pool, worker)
    provider.send(ev.WorkerGone(pool, worker, "killed"))
    assert provider.only(ev.SpawnWorker).pool == other


def waiting_for_room():
    """One caller's worker runs while another caller's input waits for its room."""
    provider = Provider(cpu_milli=1000)
    pool, worker = provider.ready()
    provider.succeed(pool, worker)
    provider.ask("l2", caller="dan")
    other = provider.only(ev.PreparePool).pool
    provider.send(ev.InputCame("l1", Input(2, 1, b"payload")))
    provider.send(ev.PoolReady(other))
    provider.send(ev.InputCame("l2", Input(1, 1, b"payload")))
    assert not provider.all(ev.StopWorker)
    assert not provider.all(ev.SpawnWorker)
    return provider, pool, worker, other


def test_who_waits_for_room_gets_it_when_a_worker_of_another_falls_idle():
    provider, pool, worker, other = waiting_for_room()
    provider.succeed(pool, worker, number=2)
    assert provider.only(ev.StopWorker) == ev.StopWorker(pool, worker)
    provider.send(ev.WorkerGone(pool, worker, "killed"))
    assert provider.only(ev.SpawnWorker).pool == other


def test_who_waits_for_room_gets_it_when_a_sandbox_of_another_ends():
    provider, pool, _worker, other = waiting_for_room()
    provider.send(ev.PoolFailed(pool, "sandbox", BROKEN))
    assert provider.only(ev.SpawnWorker).pool == other


def test_an_idle_worker_ends_after_its_time_and_the_zygote_later():
    provider = Provider()
    pool, worker = provider.ready()
    provider.succeed(pool, worker)
    provider.send(ev.LeaseGone("l1", "done"))
    assert provider.core.wake_us == provider.now_us + staff.IDLE_US
    provider.now_us += staff.IDLE_US
    provider.send(ev.Tick())
    assert provider.only(ev.StopWorker) == ev.StopWorker(pool, worker)
    provider.send(ev.WorkerGone(pool, worker, "left"))
    assert not provider.all(ev.ClosePool), "the zygote stays longer"
    assert provider.core.room.free() == (2000, 4096)
    provider.now_us += staff.ZYGOTE_US
    provider.send(ev.Tick())
    assert provider.only(ev.ClosePool).pool == pool


def test_an_input_that_runs_too_long_is_ended():
    provider = Provider()
    pool, worker = provider.ready(function=spec(timeout_us=2_000_000))
    provider.now_us += 2_000_000
    provider.send(ev.Tick())
    assert provider.posts(InputDone)[0].failure.kind == "timeout"
    assert provider.only(ev.KillWorker).worker == worker
    provider.succeed(pool, worker)
    assert not provider.posts(InputDone)


@pytest.mark.parametrize(
    ("reason", "kind"), [("killed by signal 11", "execution"), ("out of memory: limit 512 MiB", "resource-exceeded")]
)
def test_a_worker_that_dies_ends_its_input_with_the_reason(reason, kind):
    provider = Provider()
    pool, worker = provider.ready()
    provider.send(ev.WorkerGone(pool, worker, reason))
    done = provider.posts(InputDone)[0]
    assert done.failure.kind == kind
    assert reason in done.failure.why


def test_a_sandbox_that_ends_loses_what_ran_so_that_it_runs_elsewhere():
    provider = Provider()
    pool, _ = provider.ready()
    provider.now_us += 1000
    provider.send(ev.PoolFailed(pool, "sandbox", BROKEN))
    assert provider.posts(InputDone) == [InputDone(1, 1, 1000, lost="no bubblewrap")]
    assert provider.posts(LeaseRefused)[0].reason == "sandbox"
    assert provider.only(ev.SettleLease).meter.run_us == 1000


def test_a_worker_that_never_comes_up_gives_up_the_pool():
    provider = Provider()
    provider.ask()
    pool = provider.only(ev.PreparePool).pool
    provider.send(ev.PoolReady(pool))
    provider.send(ev.InputCame("l1", Input(1, 1, b"")))
    for _ in range(limits.STARTS_MAX):
        provider.send(ev.WorkerGone(pool, provider.only(ev.SpawnWorker).worker, "exit 1"))
    assert provider.posts(LeaseRefused)[0].failure.why == "exit 1"
    assert provider.only(ev.ClosePool).pool == pool


def test_a_caller_that_dies_stops_its_work_and_the_bill():
    provider = Provider()
    _pool, worker = provider.ready()
    provider.now_us += 3_000_000
    provider.send(ev.LeaseGone("l1", "the peer fell silent"))
    assert provider.only(ev.KillWorker).worker == worker
    settled = provider.only(ev.SettleLease)
    assert (settled.meter.run_us, settled.reason) == (3_000_000, "the peer fell silent")


def test_cancelling_one_input_leaves_the_others_alone():
    provider = Provider()
    provider.ready(inputs=2)
    provider.send(ev.InputDropped("l1", 1, "cancelled"))
    assert [done.input for done in provider.posts(InputDone)] == [1]
    assert len(provider.all(ev.KillWorker)) == 1


def test_the_owner_pauses_and_resumes():
    provider = Provider()
    _pool, worker = provider.ready()
    provider.send(ev.Paused("owner returned"))
    provider.ask("l2", caller="dan")
    refused = provider.posts(LeaseRefused)[0]
    assert (refused.reason, refused.failure.why) == ("paused", "owner returned")
    provider.send(ev.Paused("owner returned", now=True))
    assert provider.posts(InputDone)[0].lost == "owner returned"
    assert provider.posts(CloseLease)
    assert worker not in [each[0] for each in provider.core.workers()]
    provider.send(ev.Resumed())
    provider.ask("l3")
    assert provider.posts(LeaseGranted)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": PROTOCOL + 1}, "version"),
        ({"protocol": PROTOCOL - 1}, "version"),
        ({"now_us": NOW_US + 3600 * 1_000_000}, "clock"),
        ({"function": needs(cpu_milli=64_000)}, "policy"),
        ({"function": needs(cpu_milli=0)}, "function"),
        ({"function": spec(timeout_us=-1)}, "function"),
        ({"function": spec(module="", pickled=b"")}, "function"),
        ({"function": spec(sharing=Sharing(max_inputs=0))}, "function"),
        ({"function": spec(sharing=Sharing(max_inputs=1 << 40))}, "function"),
        ({"function": spec(scaling=Scaling(min_containers=-1))}, "function"),
        ({"function": spec(network=("example.org",))}, "policy"),
        ({"function": spec(network=("10.0.0.1",))}, "function"),
        ({"function": spec(network=("EXAMPLE.org",))}, "function"),
    ],
)
def test_refusals_say_why(changes, reason):
    provider = Provider()
    provider.ask(**changes)
    assert provider.posts(LeaseRefused)[0].reason == reason
    assert not provider.all(ev.PreparePool)


def test_a_version_refusal_says_which_side_to_upgrade():
    provider = Provider()
    provider.ask(protocol=PROTOCOL + 1)
    assert "mira" in provider.posts(LeaseRefused)[0].failure.fix
    provider.ask(protocol=PROTOCOL - 1)
    assert "caller's node" in provider.posts(LeaseRefused)[0].failure.fix


def test_a_flood_of_inputs_ends_the_lease():
    provider = Provider()
    provider.ask()
    for number in range(1, 2 * (1 + limits.AHEAD_MAX) + limits.INPUTS_SLACK + 2):
        provider.send(ev.InputCame("l1", Input(number, 1, b"")))
    assert provider.posts(CloseLease)
    assert provider.all(ev.SettleLease)


def test_busy_pools_are_bounded_too():
    provider = Provider(cpu_milli=100_000, memory_mib=1 << 20)
    for number in range(staff.POOLS_MAX):
        provider.ask(f"l{number}", caller=f"caller-{number}")
        provider.send(ev.InputCame(f"l{number}", Input(1, 1, b"payload")))
    provider.ask("late", caller="late")
    assert provider.posts(LeaseRefused)[0].reason == "busy"
    provider.ask("again", caller="caller-0")
    assert provider.posts(LeaseGranted)
    assert len(provider.core._pools) == staff.POOLS_MAX


def test_pools_are_bounded():
    provider = Provider(cpu_milli=100_000, memory_mib=1 << 20)
    for number in range(staff.POOLS_MAX + 5):
        provider.ask(f"l{number}", function=spec(name=f"f{number}"))
        provider.send(ev.LeaseGone(f"l{number}", "done"))
    assert len(provider.core._pools) <= staff.POOLS_MAX


def test_a_sandbox_that_is_not_here_is_refused_and_the_granted_one_named():
    provider = Provider()
    provider.ask(function=spec(tier="gvisor"))
    (refused,) = provider.posts(LeaseRefused)
    assert (refused.reason, refused.failure.why) == ("sandbox", "it runs functions in bwrap")
    provider.ask("l2", function=spec(tier="no such thing"))
    assert provider.posts(LeaseRefused)[-1].reason == "function"
    provider.ask("l3", function=spec(tier="bwrap"))
    assert provider.posts(LeaseGranted)[-1].tier == "bwrap"


def stricter(*tiers):
    """A provider where strangers, here everybody but bob, run in gvisor."""
    provider = Provider()
    lent = Capacity(2000, 4096, tiers, least=lambda caller: "" if caller == "bob" else "gvisor")
    provider.core = ProviderCore("mira", lent)
    return provider


def test_strangers_get_the_sandbox_that_the_owner_has_set_for_them():
    provider = stricter("bwrap", "gvisor")
    provider.ask("l1", "cas")
    assert (provider.only(ev.PreparePool).tier, provider.posts(LeaseGranted)[0].tier) == ("gvisor", "gvisor")
    provider.ask("l2", "bob")
    assert (provider.only(ev.PreparePool).tier, provider.posts(LeaseGranted)[0].tier) == ("bwrap", "bwrap")
    bare = stricter("bwrap")
    bare.ask("l1", "cas")
    (refused,) = bare.posts(LeaseRefused)
    assert (refused.reason, "strangers_sandbox" in refused.failure.why) == ("sandbox", True)
    bare.ask("l2", "bob")
    assert bare.posts(LeaseGranted)


def test_the_network_is_granted_as_far_as_the_owner_lends_it():
    provider = Provider(network=("*.example.org",))
    provider.ask(function=spec(network=("a.example.org", "pypi.org")))
    assert provider.posts(LeaseRefused)[0].failure.what == "mira does not allow pypi.org."
    provider.ask("l2", function=spec(network=("a.example.org",)))
    assert provider.posts(LeaseGranted)
