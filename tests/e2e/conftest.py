import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.mesh import Mesh, wait_until
from tests.fake_nvml import FakeMachine


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def mesh(tmp_path) -> Iterator[Mesh]:
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def trio_of_nodes(tmp_path_factory) -> Iterator[Mesh]:
    """A caller that offers nothing and two providers, shared by the tests of a module."""
    made = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        caller = made.caller()
        made.provider("ann")
        made.provider("bob")
        wait_until(lambda: len(caller.status().peers) == 2, "finding both providers")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def machine() -> Iterator[FakeMachine]:
    """Two GPUs, played by a fake driver; not below pytest's own folder, into which sandboxes' user may not look."""
    folder = Path(tempfile.mkdtemp(prefix="potluck-gpus-"))
    folder.chmod(0o755)
    yield FakeMachine(folder)
    shutil.rmtree(folder)


@pytest.fixture
def use_node(monkeypatch):
    """Let the SDK in this process talk to a node."""

    def use(node):
        monkeypatch.setenv("POTLUCK_HOME", str(node.home))
        monkeypatch.delenv("POTLUCK_SOCKET", raising=False)
        return node

    return use
