from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from pathlib import Path
from typing import Any

import cloudpickle
import pyseccomp
import pytest
import trio
from tests.conformance import check_sandbox as suite
from tests.conformance import check_sandbox_interrupt as interrupts
from tests.conformance import check_sandbox_isolation as isolation
from tests.conformance import check_sandbox_overlay as overlays
from tests.conformance import check_sandbox_volumes as volumes
from tests.meshnode.sandbox import host_image, worlds

from potluck.errors import SandboxError
from potluck_node.sandbox import memory
from potluck_node.sandbox import zygote as zygote_module
from potluck_node.sandbox.bwrap import INSIDE_UID, BwrapLauncher
from potluck_node.sandbox.cgroups import Cgroups
from potluck_node.sandbox.interface import Limits, SandboxSpec
from potluck_node.sandbox.unprivileged import UNPRIVILEGED_UID

# Functions called `inside_…` are sent into the sandbox by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

REPOSITORY = Path(__file__).parents[3]
# How long processes and files of an ended sandbox may take to vanish before a test fails, seconds.
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def launcher() -> BwrapLauncher:
    return BwrapLauncher()


@pytest.fixture
def opener(launcher: BwrapLauncher, tmp_path: Path) -> suite.Opener:
    return worlds.opener_of(launcher, tmp_path)


def number_of(name: str) -> int:
    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)


@pytest.mark.parametrize(
    "check",
    [*suite.CHECKS, *suite.ALONE_CHECKS, *interrupts.CHECKS, *isolation.CHECKS, *isolation.KERNEL_CHECKS],
    ids=lambda check: check.__name__,
)
async def test_conformance(check: Any, opener: suite.Opener) -> None:
    extra = [number_of] if "number_of" in inspect.signature(check).parameters else []
    await check(opener, *extra)


@pytest.mark.parametrize("check", volumes.CHECKS, ids=lambda check: check.__name__)
async def test_volumes(check: Any, opener: suite.Opener, tmp_path: Path) -> None:
    for place in (volumes.WRITABLE, volumes.READABLE):
        (tmp_path / "root" / place.strip("/")).mkdir()
    await check(opener, tmp_path)


@pytest.mark.parametrize("check", overlays.CHECKS, ids=lambda check: check.__name__)
async def test_overlays(check: Any, opener: suite.Opener, tmp_path: Path) -> None:
    await check(opener, tmp_path)


def host_processes(token: str) -> list[int]:
    """Processes of the host whose command line holds `token`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if token.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def inside_start_daemon(token: str) -> None:
    subprocess.Popen(["/bin/sh", "-c", f"sleep 1000; echo {token}"], start_new_session=True)


async def test_nothing_outlives_the_sandbox(opener: suite.Opener) -> None:
    token = uuid.uuid4().hex
    before = set(os.listdir("/proc/self/fd"))
    async with suite.one_worker(opener) as (_, worker):
        assert (await suite.call(worker, inside_start_daemon, token)).value is None
        assert host_processes(token)
    assert host_processes(token) == []
    assert set(os.listdir("/proc/self/fd")) == before
    assert our_groups() == []


def our_groups() -> list[Path]:
    return list(Path("/sys/fs/cgroup").rglob(f"potluck-{os.getpid()}-*"))


async def test_cancelled_while_starting(launcher: BwrapLauncher, tmp_path: Path) -> None:
    root, binds = host_image.build(tmp_path)
    token = uuid.uuid4().hex
    hangs = suite.function_spec(imports=("hangs",))
    (tmp_path / "hangs").mkdir()
    (tmp_path / "hangs" / "hangs.py").write_text(f"import os; os.execv('/bin/sleep', ['{token}', '1000'])")
    (root / "user").mkdir()
    user = (tmp_path / "hangs", "/user")
    spec = SandboxSpec(
        root=root,
        binds=(*binds, user),
        function=hangs,
        python=host_image.PYTHON,
        env={"PYTHONPATH": f"/user:{host_image.SITE}"},
    )
    before = set(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as starting:
            starting.start_soon(launcher.start, nursery, spec)
            with trio.fail_after(PATIENCE_S):
                while not host_processes(token):
                    await trio.sleep(0.01)
            starting.cancel_scope.cancel()
        assert host_processes(token) == []
        assert our_groups() == []
    assert set(os.listdir("/proc/self/fd")) == before


def orphans() -> set[str]:
    """bwrap's processes that nobody waits for."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            if (status["Name"].strip(), status["PPid"].strip()) == ("bwrap", "1") and "Z" not in status["State"]:
                found.add(folder.name)
    return found


@pytest.mark.parametrize("grouped", [True, False], ids=["groups", "no groups"])
async def test_cancelled_before_its_first_process_is_known(grouped: bool, tmp_path: Path) -> None:
    """At any millisecond of a start: bwrap's child waits for bwrap, and would wait for ever."""
    launcher = BwrapLauncher() if grouped else BwrapLauncher(groups=Cgroups({}, v2=False))
    root, binds = host_image.build(tmp_path)
    spec = SandboxSpec(root=root, binds=binds, function=suite.function_spec(), python=host_image.PYTHON)
    before = orphans()
    for tenths_ms in range(0, 250, 4):
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(tenths_ms / 10_000):
                await launcher.start(nursery, spec)
            nursery.cancel_scope.cancel()
    assert orphans() <= before
    assert our_groups() == []


async def test_cancelling_the_nursery_ends_the_sandbox(launcher: BwrapLauncher, tmp_path: Path) -> None:
    root, binds = host_image.build(tmp_path)
    env = {"PYTHONPATH": host_image.SITE}
    spec = SandboxSpec(root=root, binds=binds, function=suite.function_spec(), python=host_image.PYTHON, env=env)
    async with trio.open_nursery() as nursery:
        zygote = await launcher.start(nursery, spec)
        worker = await suite.worker_of(zygote)
        nursery.cancel_scope.cancel()
    assert not zygote.alive
    assert (await suite.end_of(worker)).status == -signal.SIGKILL
    assert our_groups() == []


async def test_an_import_that_hangs(opener: suite.Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zygote_module, "START_TIMEOUT_S", 1.0)
    spec = suite.function_spec(imports=("hangs",))
    (tmp_path / "root" / "user").mkdir()
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "hangs.py").write_text("import time; time.sleep(1000)")
    error = await suite.start_error(
        opener,
        function=spec,
        more_binds=((tmp_path / "user", "/user"),),
        env={"PYTHONPATH": f"/user:{host_image.SITE}"},
    )
    assert isinstance(error, SandboxError)
    assert "its imports took longer than 1 s" in error.what


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"python": "/no/python"}, "No such file"),
        ({"python": "/bin/false"}, "exit 1"),
        ({"workdir": "/no/folder"}, "No such file"),
        ({"env": {"a=b": "c"}}, "cannot be set"),
        ({"more_binds": ((Path("/no/folder"), "/tmp"),)}, "o such file"),
    ],
    ids=["python", "exit", "workdir", "env", "bind"],
)
async def test_why_it_does_not_start(opener: suite.Opener, fields: dict[str, Any], text: str) -> None:
    error = await suite.start_error(opener, **fields)
    assert isinstance(error, SandboxError)
    assert text in str(error)
    assert our_groups() == []


async def test_a_closed_sandbox_forks_no_more(opener: suite.Opener) -> None:
    async with suite.one_worker(opener) as (zygote, _):
        await zygote.aclose()
        with pytest.raises(SandboxError, match="could not fork"):
            await zygote.spawn("late")


async def test_a_cancelled_fork_leaves_no_worker(opener: suite.Opener) -> None:
    async with suite.one_worker(opener) as (zygote, worker):
        with trio.CancelScope() as scope:
            scope.cancel()
            await zygote.spawn("unwanted")
        assert scope.cancelled_caught
        await suite.goes_on(zygote)
        with trio.fail_after(PATIENCE_S):
            while len((await suite.call(worker, inside_processes)).value) > 3:  # zygote, worker, "after"
                pass


def inside_processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


async def test_secrets_do_not_show_in_arguments(opener: suite.Opener) -> None:
    secret = uuid.uuid4().hex
    async with suite.one_worker(opener, env={"SECRET": secret}) as (_, worker):
        assert (await suite.call(worker, os.getenv, "SECRET")).value == secret
        assert host_processes(secret) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_a_root_node_has_unprivileged_sandboxes(opener: suite.Opener) -> None:
    token = uuid.uuid4().hex
    async with suite.one_worker(opener) as (_, worker):
        assert (await suite.call(worker, inside_start_daemon, token)).value is None
        pid, *_ = host_processes(token)
        status = status_of(pid)
        assert status["Uid"].split() == [str(UNPRIVILEGED_UID)] * 4
        assert status["Groups"].split() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a set-user-id program of another user")
async def test_setuid_programs_have_no_effect(opener: suite.Opener, tmp_path: Path) -> None:
    (tmp_path / "root" / "setuid").mkdir()
    folder = tmp_path / "setuid"
    folder.mkdir()
    shutil.copy("/usr/bin/id", folder / "id")
    (folder / "id").chmod(0o4755)
    async with suite.one_worker(opener, more_binds=((folder, "/setuid"),)) as (_, worker):
        said = (await suite.call(worker, subprocess.check_output, ["/setuid/id", "-u"])).value
        assert int(said) == INSIDE_UID


async def test_memory_is_sampled_where_no_group_limits_it(tmp_path: Path) -> None:
    bare = BwrapLauncher(groups=Cgroups({}, v2=False))
    async with suite.one_worker(worlds.opener_of(bare, tmp_path), limits=Limits(memory_mib=150)) as (zygote, worker):
        await suite.post(worker, inside_eat_and_wait, 400)
        assert "out of memory: limit 150 MiB" in (await suite.end_of(worker)).reason
        assert await zygote.wait_ended() == "out of memory: limit 150 MiB"


def inside_eat_and_wait(mib: int) -> None:
    held = [bytearray(b"x" * (1 << 20)) for _ in range(mib)]
    time.sleep(1000 + len(held))


async def test_processes_are_limited_without_groups(tmp_path: Path) -> None:
    bare = BwrapLauncher(groups=Cgroups({}, v2=False))
    await suite.check_process_limit(worlds.opener_of(bare, tmp_path))


def test_used_memory_counts_shared_pages_once() -> None:
    assert 5 < memory.used_mib(os.getpid()) < 4096
    assert memory.used_mib(2**22 + 1) == 0


NODE = """
import sys, time
import trio
from pathlib import Path
from tests.conformance import check_sandbox as suite
from tests.conformance import check_sandbox_interrupt as interrupts
from tests.meshnode.sandbox import worlds
from potluck_node.sandbox.bwrap import BwrapLauncher

async def main():
    async with suite.one_worker(worlds.opener_of(BwrapLauncher(), Path(sys.argv[1]))) as (_, worker):
        outcome = await suite.call(worker, suite.inside_double, 21)
        print(outcome.value, flush=True)
        if sys.argv[2] == "stay":
            await suite.post(worker, time.sleep, 1000)
            await trio.sleep_forever()

trio.run(main)
"""


def start_node(
    folder: Path, mode: str, *prefix: str, python: str = sys.executable, **options: Any
) -> subprocess.Popen[str]:
    command = [*prefix, python, "-c", NODE, str(folder), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, **options)


def test_a_killed_node_takes_its_sandboxes_along(tmp_path: Path) -> None:
    with start_node(tmp_path, "stay") as node:
        assert node.stdout is not None
        assert node.stdout.readline() == "42\n"
        inner = [pid for pid in host_processes("potluck_runner") if parent_of(parent_of(pid)) == node.pid]
        ends = [os.pidfd_open(pid) for pid in inner]
        assert ends, "the sandbox's processes were not found"
        node.kill()
    for end in ends:
        assert wait_readable(end), "a process of the sandbox outlived its node"
        os.close(end)


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def wait_readable(descriptor: int) -> bool:
    import select

    return bool(select.select([descriptor], [], [], PATIENCE_S)[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="root changes to an ordinary user here; others are one already")
def test_an_ordinary_user_can_run_sandboxes(tmp_path: Path) -> None:
    user = 12_345_678
    python = python_of_everyone(user)
    folder = Path("/tmp", f"potluck-test-{uuid.uuid4().hex}")
    folder.mkdir()
    os.chown(folder, user, user)
    paths = [
        REPOSITORY,
        *(REPOSITORY / part for part in ("sdk", "meshnode", "image_store", "ledger")),
        sysconfig.get_path("platlib"),
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": ":".join(map(str, paths))}
    drop = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    try:
        with start_node(folder, "leave", *drop, python=python, env=environment) as node:
            assert node.stdout is not None
            assert node.stdout.read() == "42\n"
        assert node.returncode == 0
    finally:
        shutil.rmtree(folder)


def python_of_everyone(user: int) -> str:
    """A Python of this version that another user may run."""
    allowed = "os.access(sys.executable, os.X_OK) and os.access(sys.argv[1], os.R_OK)"
    question = f"import os, sys; print({allowed}, *sys.version_info[:2])"
    for python in (sys.executable, "/usr/bin/python3"):
        ask = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", python, "-c", question, REPOSITORY]
        done = subprocess.run(ask, capture_output=True, text=True, cwd="/", check=False)
        if done.stdout.split() == ["True", *map(str, sys.version_info[:2])]:
            return python
    pytest.skip("another user may not run a Python of this version, or not read this folder")
