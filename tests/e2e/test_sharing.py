"""Many inputs in a worker, workers that are kept, generators and results of peers, over real nodes."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from tests.e2e import sharing_sample as sample
from tests.e2e.mesh import wait_until

from potluck.errors import SerializationError
from potluck_ledger.journal import verify


@pytest.fixture
def pair(mesh, use_node):
    """A caller, and ann, who runs everything."""
    caller, ann = use_node(mesh.caller()), mesh.provider("ann", "--idle-s", "5")
    wait_until(lambda: caller.status().peers, "finding ann")
    return caller, ann


def states(node):
    return sorted(worker.state for worker in node.status().workers)


def receipts(node):
    owner, entries = node.journal()
    return [entry.receipt for entry in verify(owner, entries)]


def test_inputs_share_a_worker_and_its_bill(pair):
    _, ann = pair
    with sample.app.run(show_progress=False):
        assert sorted(sample.meet.map(range(sample.TOGETHER))) == list(range(sample.TOGETHER))
        assert len(ann.status().workers) == 1
    wait_until(lambda: receipts(ann), "the receipt")
    (receipt,) = receipts(ann)
    assert receipt.inputs == sample.TOGETHER
    # All were in it for more than a second, and it is billed once.
    assert receipt.lease_us >= 1_000_000
    assert receipt.busy_us <= receipt.lease_us


def test_an_input_that_is_cancelled_leaves_the_others_of_its_worker_alone(pair):
    _, ann = pair
    with sample.app.run(show_progress=False):
        long, short = sample.nap.spawn(300), sample.nap.spawn(3)
        wait_until(lambda: states(ann) == ["running"], "ann at work")
        long.cancel()
        assert short.get() == 3
        assert sample.nap.remote(0) == 0


def test_workers_are_kept_as_the_app_asks_and_no_longer(pair):
    _, ann = pair
    with sample.keeping.run(show_progress=False):
        sample.kept.hydrate()
        wait_until(lambda: states(ann) == ["idle", "idle"], "two workers without any call")
        assert sample.kept.get_current_stats() == (0, 2)
        assert sample.kept.remote(3) == 3
        sample.kept.update_autoscaler(min_containers=1)
        wait_until(lambda: states(ann) == ["idle"], "the end of one")
    wait_until(lambda: not states(ann), "the end of the other")


def test_an_idle_worker_ends_after_its_window(pair):
    _, ann = pair
    with sample.app.run(show_progress=False):
        assert sample.plain.remote(1) == 1
        wait_until(lambda: not states(ann), "the end of the worker")
        assert sample.plain.remote(2) == 2


def test_a_worker_of_one_input_is_not_used_again(pair):
    with sample.app.run(show_progress=False):
        assert [sample.count.remote() for _ in range(3)] == [1, 1, 1]


def test_items_arrive_once_though_their_machine_dies(trio_mesh):
    _caller, *providers = trio_mesh
    with sample.app.run(show_progress=False):
        items = sample.countdown.remote_gen(40, 0.1)
        seen = [next(items) for _ in range(5)]
        (busy,) = [node for node in providers if "running" in states(node)]
        busy.kill()
        seen += list(items)
    assert seen == list(range(40, 0, -1))


def test_a_generator_that_is_left_ends(pair):
    _, ann = pair
    with sample.app.run(show_progress=False):
        items = sample.countdown.remote_gen(10**6, 0.01)
        assert next(items) == 10**6
        items.close()
        wait_until(lambda: "running" not in states(ann), "the end of the generator")
        assert list(sample.countdown.remote_gen(2, 0.0)) == [2, 1]


def test_a_map_does_not_wait_for_a_worker_that_hangs(trio_mesh):
    """Its node is well, and so the input is not lost, only slow: it runs a second time elsewhere."""
    _caller, ann, bob = trio_mesh
    with sample.app.run(show_progress=False):
        results = sample.square.map(range(40))
        seen = [next(results)]
        wait_until(lambda: "running" in states(ann) and "running" in states(bob), "both at work")
        hung = workers_of(ann)
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        try:
            seen += list(results)
        finally:
            for pid in hung:
                # Its node ends it as soon as the other one has won.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    assert hung
    assert seen == [number * number for number in range(40)]


def workers_of(node) -> list[int]:
    """The processes deepest below a node: workers, which their zygote has forked."""
    parents = {int(path.name): parent_of(path) for path in Path("/proc").glob("[0-9]*")}

    def below(pid):
        return pid == node.process.pid or (pid in parents and below(parents[pid]))

    return [pid for pid in parents if below(parents[pid]) and pid not in parents.values()]


def parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture
def trio_mesh(mesh, use_node):
    nodes = use_node(mesh.caller()), mesh.provider("ann"), mesh.provider("bob")
    wait_until(lambda: len(nodes[0].status().peers) == 2, "finding both providers")
    return nodes


def test_results_of_peers_are_data_unless_their_mesh_is_trusted(pair, mesh, use_node):
    with sample.app.run(show_progress=False), pytest.raises(SerializationError) as caught:
        sample.own.remote(1)
    assert "Own is no plain value" in str(caught.value)
    assert "trust" in caught.value.fix
    use_node(mesh.caller("dee", "--trust", "mesh"))
    with sample.app.run(show_progress=False):
        assert sample.own.remote(2).number == 2
