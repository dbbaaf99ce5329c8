"""GPUs for build steps, on a machine played by a fake driver."""

import threading

import pytest
from tests.e2e import build_gpu_sample as sample
from tests.e2e.built_elsewhere import small
from tests.e2e.mesh import Mesh, wait_until
from tests.e2e.test_build_on import Said, build
from tests.meshnode.test_builder_network import needs_pasta

import potluck
from potluck.errors import ImageBuildError
from potluck.wire import control

# Some seconds, in a shell that has no other program.
LONG = "i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done"


@pytest.fixture(scope="module")
def nodes(machine, tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        with_gpu = mesh.node("ann", "--device-root", str(machine.root), "--build-for-others", env=machine.env)
        wait_until(lambda: with_gpu.status().gpus, "finding the GPUs")
        yield with_gpu, mesh.node("bob", "--gpus", "none")
    finally:
        mesh.stop()


def test_a_step_sees_the_gpu_that_it_asked_for_and_gives_it_back(nodes, machine, use_node):
    use_node(nodes[0])
    with sample.app.run(show_progress=False):
        uuid, *devices = sample.seen.remote().split()
    assert uuid in (machine.uuid(0), machine.uuid(1))
    assert {f"nvidia{uuid[-1]}", "nvidiactl", "nvidia-uvm"} <= set(devices)
    assert f"nvidia{1 - int(uuid[-1])}" not in devices
    assert {gpu.state for gpu in nodes[0].status().gpus} == {"free"}


@pytest.mark.parametrize(("node", "why"), [(0, "B200"), (1, "it lends no GPU")])
def test_a_step_that_cannot_have_its_gpu_does_not_run(nodes, node, why, use_node, capsys):
    use_node(nodes[node])
    with sample.app.run(show_progress=True), pytest.raises(ImageBuildError, match="no GPU to lend") as caught:
        sample.never.remote()
    assert why in caught.value.why
    assert "--build-on" in caught.value.fix
    assert " never" not in capsys.readouterr().err


@needs_pasta
def test_a_peers_build_gives_its_gpu_back_to_the_owner_and_is_done_later(nodes):
    ann, bob = nodes
    wait_until(lambda: bob.status().peers, "finding ann")
    said, built = Said(), []
    image = small().run_commands(LONG, gpu="H100")
    thread = threading.Thread(target=lambda: built.append(build(bob, image, "ann", said)))
    thread.start()
    wait_until(lambda: "leased" in {gpu.state for gpu in ann.status().gpus}, "the step")
    client = ann.client()
    client.ask(lambda number: control.Pause(number, "a film", now=True), control.Done)
    wait_until(lambda: any("ann gave way to its owner (a film)" in line for line in said.lines), "its end")
    assert {gpu.state for gpu in ann.status().gpus} == {"free"}
    client.ask(control.Resume, control.Done)
    client.close()
    thread.join()
    assert built


def test_a_second_node_of_the_machine_leaves_a_gpu_to_the_first(nodes, machine, mesh):
    ann, _ = nodes
    base = potluck.Image.local_python().shell(["/opt/python/bin/python3", "-c"])
    image, ended = base.run_commands("import time; time.sleep(600)", gpu="H100"), []
    thread = threading.Thread(target=lambda: ended.append(ended_build(ann, image)))
    thread.start()
    wait_until(lambda: "leased" in {gpu.state for gpu in ann.status().gpus}, "the step")
    eve = mesh.node("eve", "--device-root", str(machine.root), env=machine.env)
    states = ["free", "leased by another node of its machine"]
    wait_until(lambda: sorted(gpu.state for gpu in eve.status().gpus) == states, "leaving it to the first")
    wait_until(lambda: [each.code for each in eve.status().policy] == ["gpu-neighbour"], "saying so")
    client = ann.client()
    client.ask(lambda number: control.Pause(number, "a film", now=True), control.Done)
    client.ask(control.Resume, control.Done)
    client.close()
    thread.join()
    assert ended[0].why == "a film"


def ended_build(node, image):
    with pytest.raises(ImageBuildError, match="was ended") as caught:
        build(node, image)
    return caught.value
