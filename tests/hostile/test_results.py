"""A result is a pickle: what unpickles it runs it. The node never does; the caller does, if it trusts the mesh."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import cloudpickle
import pytest
from tests.conformance import check_sandbox as suite
from tests.hostile.harness import LIMITS, PROGRAMS, inside_attack, inside_unpickle
from tests.hostile.test_contained import launcher
from tests.meshnode.sandbox import worlds

import potluck_node
from potluck.wire.worker import InputSucceeded
from potluck_node.sandbox.bwrap import BwrapLauncher

__all__ = ["launcher"]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
# What the node says to others: names of theirs in it would be unpickled by it.
UNPICKLING = {"potluck.serialize", "potluck.outcomes"}


async def test_the_node_hands_a_bomb_on_unopened(launcher: BwrapLauncher, tmp_path: Path) -> None:
    """It comes out of the sandbox as bytes. That it would go off shows in another sandbox."""
    async with suite.one_worker(worlds.opener_of(launcher, tmp_path), limits=LIMITS) as (zygote, worker):
        tools, source = ((PROGRAMS / f"{each}.py").read_text() for each in ("tools", "pickle_bomb"))
        message = (await suite.call(worker, inside_attack, tools, source, {})).message
        assert isinstance(message, InputSucceeded)
        assert b"os._exit(66)" in message.payload
        await suite.post(worker, inside_unpickle, message.payload)
        assert (await suite.end_of(worker)).reason == "exit 66"
        await suite.goes_on(zygote)


def imports_of(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return found


def test_the_node_imports_nothing_that_unpickles() -> None:
    sources = sorted(Path(potluck_node.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    found = {path.name: imports_of(path.read_text()) & (UNPICKLERS | UNPICKLING) for path in sources}
    assert {name: modules for name, modules in found.items() if modules} == {}


@pytest.mark.parametrize("source", ["import pickle", "from pickle import loads", "from potluck.serialize import loads"])
def test_an_import_would_be_found(source: str) -> None:
    assert imports_of(source) & (UNPICKLERS | UNPICKLING)
