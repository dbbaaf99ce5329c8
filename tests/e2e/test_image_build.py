"""Images that one node builds and another, which never saw them, runs."""

import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from tests.e2e import pictures
from tests.e2e.mesh import Mesh, run_cli, wait_until

from potluck.errors import ImageBuildError
from potluck.wire import control


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    made = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        caller = made.caller()
        made.provider("ann")
        made.node("bob", "--no-offer")
        wait_until(lambda: caller.status().peers, "finding the provider")
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def connected(two, use_node):
    use_node(two.nodes[0])


def test_what_a_command_made_is_there_on_another_node(capsys):
    with pictures.app.run(show_progress=True):
        assert pictures.read.remote("/made") == "by a command"


def test_a_failed_step_is_shown_with_its_last_lines():
    with pictures.app.run(show_progress=False), pytest.raises(ImageBuildError, match="status 1") as caught:
        pictures.never.remote()
    assert caught.value.why.splitlines() == ["almost", "the reason"]


def test_a_shell_shows_the_state_before_a_failed_step(two):
    with pictures.app.run(show_progress=False), pytest.raises(ImageBuildError) as caught:
        pictures.never.remote()
    words = caught.value.fix.partition("potluck shell ")[2].split()
    code = "read -r line </made; echo $line; echo changed >/made\n"
    for _ in range(2):
        done = run_cli(two.nodes[0], "shell", words[0], stdin=code)
        assert done.stdout.splitlines()[0] == "by a command", done.stderr
    assert "is not an image" in run_cli(two.nodes[0], "shell", "nonsense").stderr
    missing = run_cli(two.nodes[0], "shell", "ab" * 32)
    assert (missing.returncode, "lacks" in missing.stderr) == (1, True)


def _debian_is_to_be_had() -> bool:
    """Whether mmdebstrap is here and a mirror that this machine's own apt uses answers."""
    if shutil.which("mmdebstrap") is None:
        return False
    sites = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True).stdout
    for site in set(sites.split()):
        try:
            socket.create_connection((urlsplit(site).hostname or "", urlsplit(site).port or 80), 5).close()
        except OSError:
            continue
        return True
    return False


@pytest.mark.skipif(not _debian_is_to_be_had(), reason="needs mmdebstrap and a Debian mirror")
def test_debian_with_packages_commands_and_files(two):
    """And a third node builds the same image from the same definition."""
    caller, _, bob = two.nodes
    definition = pictures.debian._definition()
    with ThreadPoolExecutor() as pool, pictures.app.run(show_progress=False):
        again = pool.submit(ask_to_build, bob, definition)
        seen = pictures.picture.remote("hi")
    assert "_" in seen["figlet"]
    assert seen["module"] == "/opt/site/tinynetrc.py"
    assert seen["cached"]
    assert seen["here"] == ["banner", "tests"]
    assert seen["tests"] == ["pictures.py"]
    assert (seen["who"], seen["python"]) == ("you", "/usr/bin/python3")
    assert again.result() == ask_to_build(caller, definition)


def ask_to_build(node, definition):
    client = node.client()
    try:
        return client.ask(lambda number: control.BuildImage(number, definition), control.ImageBuilt).image
    finally:
        client.close()
