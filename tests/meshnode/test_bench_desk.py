"""When a machine is measured, and what is kept of it."""

import msgspec
import pytest
import trio
from tests.meshnode.devices.test_watch import ONE
from tests.meshnode.test_lend import provider

from potluck.errors import RefusedError
from potluck.wire.bench import Kept, RunBench
from potluck.wire.offer import Score
from potluck_node import bench_desk
from potluck_node.bench import WORKLOAD, cpu, gpu
from potluck_node.bench_desk import BenchDesk
from potluck_node.devices.cpu import describe_cpu

TRUE, FALSE = Score("", 20_000), Score("", 1)


def write(path, measured, workload=WORKLOAD):
    path.write_bytes(msgspec.json.encode(Kept(workload, measured)))


def test_the_processor_has_a_score():
    score = cpu()
    assert score.gpu_model == ""
    # From the slowest boards to several times today's fastest cores.
    assert 500 < score.compute < 500_000


async def test_what_is_asked_for_is_measured_kept_and_told(tmp_path):
    path, told = tmp_path / "scores.json", []
    write(path, {describe_cpu(): FALSE})
    desk = BenchDesk(path, None, lambda: told.append(1))
    assert desk.scores() == (FALSE,)
    done = await desk.answer(RunBench(7))
    assert done.question == 7
    assert done.scores[0].compute > FALSE.compute
    assert told == [1]
    assert BenchDesk(path, None, lambda: None).scores() == done.scores


@pytest.mark.parametrize("text", [b"", b"{}", b'{"workload":1,"measured":{"CPU":[3]}}', b"\xff"])
def test_a_file_that_cannot_be_read_is_no_score(tmp_path, text):
    path = tmp_path / "scores.json"
    path.write_bytes(text)
    assert BenchDesk(path, None, lambda: None).scores() == ()


def test_scores_of_another_workload_or_device_do_not_count(tmp_path):
    path = tmp_path / "scores.json"
    write(path, {describe_cpu(): TRUE}, WORKLOAD + 1)
    assert BenchDesk(path, None, lambda: None).scores() == ()
    write(path, {"CPU: of the machine that this disk was in before": TRUE})
    assert BenchDesk(path, None, lambda: None).scores() == ()


async def serve_until_changed(desk_of):
    changed = trio.Event()
    desk = desk_of(changed.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.serve)
        await changed.wait()
        nursery.cancel_scope.cancel()
    return desk


async def test_a_node_measures_what_is_new_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_desk, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(bench_desk, "_has_torch", lambda: False)
    path, node = tmp_path / "scores.json", await provider(ONE)
    write(path, {describe_cpu(): TRUE})
    desk = await serve_until_changed(lambda changed: BenchDesk(path, node, changed))
    # Without torch nothing is claimed of the GPU, which is remembered; the processor was known.
    assert desk.scores() == (TRUE,)
    assert msgspec.json.decode(path.read_bytes(), type=Kept).measured == {describe_cpu(): TRUE, ONE.model: None}


async def test_nothing_is_measured_while_functions_run(tmp_path, monkeypatch):
    node = await provider(ONE)
    monkeypatch.setattr(node.core, "workers", lambda: iter([("w", "f", "ann", "running", 0)]))
    desk = BenchDesk(tmp_path / "scores.json", node, lambda: None)
    with pytest.raises(RefusedError, match=r"functions run on it[\s\S]*potluck pause --now"):
        await desk.answer(RunBench(1))


async def test_a_gpu_is_held_while_it_is_measured_and_left_out_while_leased(tmp_path, monkeypatch):
    node, seen = await provider(ONE), []

    async def run(kind, env):
        await trio.lowlevel.checkpoint()
        if kind == "cpu":
            return TRUE
        seen.append((node.core.gpus.offers()[0].state, env))
        return Score("", 65_000, 500_000)

    monkeypatch.setattr(bench_desk, "_run", run)
    monkeypatch.setattr(bench_desk, "_has_torch", lambda: True)
    desk = BenchDesk(tmp_path / "scores.json", node, lambda: None)
    with node.lend(("any",)):
        done = await desk.answer(RunBench(1))
    assert done.scores == (TRUE,)
    assert "its GPUs are leased" in done.left_out[0]
    assert not seen
    done = await desk.answer(RunBench(2))
    assert done.scores == (TRUE, Score("NVIDIA A10G", 65_000, 500_000))
    assert seen == [("leased", {"CUDA_VISIBLE_DEVICES": "GPU-1"})]
    assert node.core.gpus.offers()[0].state == "free"


def test_without_torch_nothing_is_claimed_of_a_gpu(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert gpu() is None
