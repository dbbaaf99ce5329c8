"""Who gets what is free: who has used less of their share, then all others; who is beyond it gives way."""

from tests.meshnode.core.test_provider import Provider
from tests.meshnode.core.worlds import needs

from potluck.wire.lease import Input, LeaseGranted, LeaseRefused
from potluck_node.core import provider_events as ev
from potluck_node.core.asks import WAIT_US, WAITING_MAX, Asks

ONE = needs(cpu_milli=1000)


def lab(cpus=1, **shares):
    provider = Provider(cpu_milli=cpus * 1000)
    provider.core.room.share = lambda caller: shares.get(caller, 0)
    return provider


def refused(provider):
    return [message.failure.why for message in provider.posts(LeaseRefused)]


def full(provider, caller):
    """One worker that is busy with the first of two inputs."""
    pool, worker = provider.ready("l1", caller=caller, function=ONE)
    return pool, worker


def test_room_that_comes_up_waits_for_who_used_less():
    provider = lab(ann=100, bob=900, eve=500)
    pool, worker = full(provider, "eve")
    for lease, caller in (("l2", "bob"), ("l3", "ann")):
        provider.ask(lease, caller, ONE)
        assert refused(provider) == [""]
    provider.send(ev.LeaseGone("l1", "done"))
    provider.send(ev.WorkerGone(pool, worker, "ended"))
    provider.ask("l2", "bob", ONE)
    assert "used less of their share" in refused(provider)[0]
    provider.ask("l3", "ann", ONE)
    assert provider.posts(LeaseGranted)


def test_nobody_waits_for_a_caller_that_has_left():
    provider = lab(ann=100, bob=900)
    pool, worker = full(provider, "eve")
    provider.ask("l3", "ann", ONE)
    provider.send(ev.LeaseGone("l1", "done"))
    provider.send(ev.WorkerGone(pool, worker, "ended"))
    provider.now_us += WAIT_US
    provider.ask("l2", "bob", ONE)
    assert provider.posts(LeaseGranted)


def test_where_there_is_room_for_all_nobody_waits():
    provider = lab(cpus=2, ann=100, bob=900)
    pools = [provider.ready(f"l{n}", caller=f"eve{n}", function=ONE) for n in (1, 2)]
    provider.ask("l3", "ann", ONE)
    assert refused(provider)
    for number, (pool, worker) in enumerate(pools, 1):
        provider.send(ev.LeaseGone(f"l{number}", "done"))
        provider.send(ev.WorkerGone(pool, worker, "ended"))
    provider.ask("l4", "bob", ONE)
    assert provider.posts(LeaseGranted)


def test_without_shares_whoever_asks_first_is_first():
    provider = lab()
    pool, worker = full(provider, "eve")
    provider.ask("l2", "ann", ONE)
    provider.send(ev.LeaseGone("l1", "done"))
    provider.send(ev.WorkerGone(pool, worker, "ended"))
    provider.ask("l3", "bob", ONE)
    assert provider.posts(LeaseGranted)


def test_who_waits_is_remembered_within_bounds():
    provider = lab()
    full(provider, "eve")
    for number in range(WAITING_MAX + 5):
        provider.ask(f"l{number + 2}", f"c{number}", ONE)
    asks = provider.core.asks
    assert isinstance(asks, Asks)
    assert len(asks.waiting) == WAITING_MAX


def two_waiting(**shares):
    """Pools of two callers, each with an input and no worker, and one place for both: who gets the worker."""
    provider = lab(**shares)
    pool, worker = full(provider, "eve")
    waiting = {}
    for number, caller in ((2, "ann"), (3, "bob")):
        provider.core.room.due = lambda *args: 1
        provider.ask(f"l{number}", caller, ONE)
        waiting[caller] = provider.only(ev.PreparePool).pool
        provider.send(ev.PoolReady(waiting[caller]))
        provider.send(ev.InputCame(f"l{number}", Input(1, 1, b"payload")))
    provider.send(ev.LeaseGone("l1", "done"))
    provider.send(ev.WorkerGone(pool, worker, "ended"))
    return next(name for name, each in waiting.items() if each == provider.only(ev.SpawnWorker).pool)


def test_the_next_worker_is_for_who_used_less():
    assert two_waiting(ann=900, bob=100) == "bob"
    assert two_waiting(ann=100, bob=900) == "ann"
    assert two_waiting(ann=120, bob=100) == "ann"


def test_who_is_beyond_its_share_gives_way():
    for shares, gives in (({"eve": 1200}, True), ({"eve": 999, "ann": 1200}, False), ({}, False)):
        provider = lab(**shares)
        pool, worker = provider.ready("l1", inputs=1, caller="eve", function=ONE)
        provider.send(ev.InputCame("l1", Input(2, 1, b"payload")))
        room = provider.core.room
        assert room.due("ann", ONE, provider.now_us) == int(gives)
        assert worker in room._pools[pool].workers
