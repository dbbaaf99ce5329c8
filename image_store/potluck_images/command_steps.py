"""Steps that run commands in the image, in the sandbox of a `Workshop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from potluck_images import debian, packages, pip_install
from potluck_images.added_python import add_python
from potluck_images.bench import Bench, Grant
from potluck_images.definition import AptInstall, DebianSlim, PipInstall, Run, RunFunction
from potluck_images.draft import Draft
from potluck_images.errors import ImageBuildError
from potluck_images.interpreter import find_interpreter
from potluck_images.layers import Made
from potluck_images.python_steps import add_runtime

_Running = Run | RunFunction | AptInstall | PipInstall

_CALL = """
import sys, cloudpickle
with open(sys.argv[1], "rb") as file:
    function, args, kwargs = cloudpickle.load(file)
function(*args, **kwargs)
"""


def add_debian(draft: Draft, step: DebianSlim) -> None:
    """Raises `ImageBuildError`, `PythonVersionError`."""
    draft.begin("debian_slim")
    own = debian.suite(step.version)
    release = own or debian.NEWEST
    draft.progress("debian", release)
    python = find_interpreter(step.executable, step.version)
    key = [release, debian.PACKAGES, python.machine]
    base = draft.cache.get(
        "debian", key, lambda work: debian.make(draft.workshop(), release, work, draft.say("debian")), step.force
    )
    draft.foreign, draft.python, draft.force = True, python, draft.force or step.force
    draft.push(base.ref)
    draft.set_env(debian.ENV)
    draft.change(python=debian.PYTHON, python_version=base.about, machine=python.machine)
    if own is None:
        add_python(draft, python, draft.say("python"))
    add_runtime(draft, python)


def run_commands(draft: Draft, step: Run) -> None:
    """Raises `ImageBuildError` with a failed command's last lines."""

    def work(bench: Bench) -> None:
        for command in step.commands:
            draft.progress("run", command)
            bench.run((*draft.shell, command), draft.say("run"), f"`{command}`", env=dict(step.env))

    _run(draft, "run", [step.commands, step.env], step, work)


def run_function(draft: Draft, step: RunFunction) -> None:
    """Raises `ImageBuildError` with the function's last lines, a traceback for example."""
    python = draft.config.python
    if not python:
        raise ImageBuildError("run_function needs a Python below it.", fix="Begin with debian_slim().")
    draft.progress("run", f"{step.name}()")

    def work(bench: Bench) -> None:
        argv = (python, "-c", _CALL, bench.write("call.pickle", step.pickled))
        bench.run(argv, draft.say("run"), f"{step.name}()", env=dict(step.env), timeout_s=step.timeout_s)

    _run(draft, "function", [step.pickled, step.env], step, work)


def install_debian_packages(draft: Draft, step: AptInstall) -> None:
    """Raises `ImageBuildError` with apt's last lines."""
    draft.progress("apt", ", ".join(step.packages))
    key: list[object] = [step.packages, step.env]
    _run(draft, "apt", key, step, lambda bench: packages.apt_install(bench, step, draft.say("apt")))


def install_python_packages(draft: Draft, step: PipInstall) -> None:
    """Raises `ImageBuildError` with uv's last lines."""
    python = draft.config.python
    key: list[object] = [pip_install.inputs(msgspec.structs.replace(step, force=False))]
    _run(draft, "pip", key, step, lambda bench: packages.uv_install(bench, step, python, draft.say("pip")))


def _run(draft: Draft, stage: str, inputs: list[object], step: _Running, work: Callable[[Bench], None]) -> None:
    """A layer of what `work` changes, made unless it was made before on the same layers. Of secrets, names count."""
    draft.foreign, draft.force = True, draft.force or step.force
    key = [*draft.state(), *inputs, *([step.secrets, step.gpu] if step.secrets or step.gpu else [])]
    grant = Grant(draft.secrets, step.gpu)
    layer = draft.cache.get(stage, key, lambda folder: _make(draft, stage, work, folder, grant), draft.force)
    draft.push(layer.ref)


def _make(draft: Draft, stage: str, work: Callable[[Bench], None], folder: Path, grant: Grant) -> Made:
    workshop, say = draft.workshop(), draft.say(stage)
    with draft.root() as root:
        bench = Bench(workshop, root, folder, dict(draft.config.env), draft.config.workdir, draft.image(), grant)
        work(bench)
        if draft.config.python:
            bench.compile(draft.config.python, say)
        return Made(bench.tree(say, packages.left_by_uv))
