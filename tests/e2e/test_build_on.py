"""Images that a chosen peer builds."""

import contextlib
import re
import threading
import time
import uuid
from pathlib import Path

import pytest
from tests.e2e.built_elsewhere import small
from tests.e2e.mesh import Mesh, run_cli, wait_until
from tests.e2e.test_image_build import _debian_is_to_be_had
from tests.meshnode.test_builder_network import needs_pasta

import potluck
from potluck.client import Client
from potluck.errors import ConnectionError, ImageBuildError, InvalidError, NotFoundError, RefusedError
from potluck.wire import control

VALUE = "hunter2-hunter2-hunter2"

pytestmark = needs_pasta


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    made = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        caller = made.caller("cas", "--trust", "mesh")
        made.provider("ann", "--build-for-others")
        made.provider("bob", "--trust", "mesh")
        wait_until(lambda: len(caller.status().peers) == 2, "finding both peers")
        yield made
    finally:
        made.stop()


class Said:
    """What a client is told."""

    def __init__(self):
        self.lines = []

    def progress(self, text):
        self.lines.append(text)

    def notice(self, message): ...
    def log(self, message): ...


def build(node, image, on="", said=None):
    client = Client(node.home / "node.sock", said or Said(), "test")
    try:
        plan = image._plan()
        return client.ask(lambda number: control.BuildImage(number, *plan, on), control.ImageBuilt).image
    finally:
        client.close()


def step(image, command, **more):
    return image.run_commands(command, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("data")
    (made / "in").mkdir()
    (made / "in" / "text").write_text("from the caller")
    (made / "in" / "link").symlink_to("../text")
    (made / "run").write_text("#!")
    (made / "run").chmod(0o755)
    (made / "left.tmp").write_text("x")
    return made


def test_a_peer_builds_the_same_image_with_files_and_secrets(mesh, folder):
    caller, ann, bob = mesh.nodes
    secret = potluck.Secret.from_dict({"TOKEN": VALUE})
    image = small().add_local_dir(folder, "/data", copy=True, ignore=["*.tmp"])
    image = step(image, 'read text < /data/in/text; echo "it is $TOKEN"; echo "$text" > /made', secrets=[secret])
    image = image.add_local_dir(folder, "/late")
    said = Said()
    there = build(caller, image, "ann", said)
    assert any("ann:" in line and "it is ***" in line for line in said.lines)
    assert build(caller, image) == there
    # Of secrets only the names count: nobody may get what another's secret gave.
    again = Said()
    assert build(bob, image, "ann", again) == there
    assert any("it is ***" in line for line in again.lines)
    assert not holding(VALUE.encode(), mesh.folder)
    assert list((ann.home / "build" / "shipped").iterdir()) == []


def holding(value, folder):
    return [path for path in Path(folder).rglob("*") if path.is_file() and value in path.read_bytes()]


def test_who_is_not_there_or_does_not_build_is_said(mesh):
    caller = mesh.nodes[0]
    with pytest.raises(NotFoundError, match="No peer named eve") as caught:
        build(caller, small(), "eve")
    assert caught.value.why == "known are ann, bob"
    with pytest.raises(RefusedError, match="bob does not build") as caught:
        build(caller, small(), "bob")
    assert "build_for_others" in caught.value.fix


def test_what_cannot_be_built_elsewhere_is_refused_with_the_alternative(mesh):
    with pytest.raises(ImageBuildError, match="local_python") as caught:
        build(mesh.nodes[0], potluck.Image.local_python(), "ann")
    assert "debian_slim" in caught.value.fix
    with pytest.raises(ImageBuildError, match="not built for others"):
        build(mesh.nodes[0], potluck.Image.from_registry("127.0.0.1:1/x"), "ann")


def test_a_failed_step_is_told_as_at_home(mesh):
    with pytest.raises(ImageBuildError, match="status 3") as caught:
        build(mesh.nodes[0], step(small(), "echo the reason; exit 3"), "ann")
    assert caught.value.why == "the reason"


SLOW = f"echo begun; while :; do :; done # {uuid.uuid4()}"


def still_running():
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if SLOW.encode() in contents(path)]


def contents(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_a_build_ends_with_its_client_and_another_waits_for_nobody(mesh):
    caller, said = mesh.nodes[0], Said()
    client = Client(caller.home / "node.sock", said, "test")
    plan = step(small(), SLOW)._plan()
    thread = threading.Thread(target=ask_and_fail, args=(client, plan))
    thread.start()
    wait_until(lambda: any("begun" in line for line in said.lines), "the build")
    with pytest.raises(RefusedError, match="building for somebody else"):
        build(caller, step(small(), "exit 0"), "ann")
    client._socket.shutdown(2)
    thread.join()
    wait_until(lambda: accepted(caller), "the end of the build")
    assert not still_running()


def ask_and_fail(client, plan):
    with pytest.raises(ConnectionError):
        client.ask(lambda number: control.BuildImage(number, *plan, "ann"), control.ImageBuilt)
    client.close()


def accepted(caller):
    try:
        return build(caller, step(small(), "exit 0"), "ann")
    except RefusedError:
        time.sleep(0.2)
        return ""


@pytest.mark.skipif(not _debian_is_to_be_had(), reason="needs mmdebstrap and a Debian mirror")
def test_a_program_runs_with_an_image_that_a_peer_built(mesh):
    caller, ann, _ = mesh.nodes
    target = str(Path(__file__).with_name("built_elsewhere.py"))
    done = run_cli(caller, "run", "--build-on", ann.status().peer, target)
    assert done.stdout == "made ['pictures.py'] tinynetrc\n", done.stderr


def test_a_peer_that_dies_is_said(mesh):
    """The last test: it takes ann away."""
    caller, ann, _ = mesh.nodes
    said, errors = Said(), []

    def attempt():
        with pytest.raises(ImageBuildError) as caught:
            build(caller, step(small(), SLOW), "ann", said)
        errors.append(caught.value)

    thread = threading.Thread(target=attempt)
    thread.start()
    wait_until(lambda: any("begun" in line for line in said.lines), "the build")
    ann.kill()
    thread.join()
    assert re.match("ann was lost before", errors[0].what)
    wait_until(lambda: not still_running(), "the end of what ann ran")
    assert "--build-on" in errors[0].fix


def test_names_that_two_peers_have_need_an_id():
    from potluck.wire.offer import Offer
    from potluck_node.build_peers import find_builder

    offers = [Offer(peer, "ann", "local", 0, 0, 0) for peer in ("p1", "p2")]
    assert find_builder(offers, "p2").peer == "p2"
    with pytest.raises(InvalidError, match="2 peers are named ann") as caught:
        find_builder(offers, "ann")
    assert "p1, p2" in caught.value.fix
    with pytest.raises(NotFoundError, match="No peer named") as caught:
        find_builder([], "ann")
    assert "knows no other" in caught.value.why
