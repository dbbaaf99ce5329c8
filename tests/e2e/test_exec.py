"""`potluck container exec`: a command in the sandbox of a worker that runs."""

import json
import os
import pty
import subprocess
import sys
from contextlib import contextmanager

import pytest
from tests.e2e import app_sample as sample
from tests.e2e.mesh import PATIENCE_S, run_cli, wait_until
from tests.e2e.test_function_shell import read_until

from potluck import calls


@pytest.fixture
def node(mesh, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    yield use_node(mesh.provider("ann"))
    if calls._connection:
        calls._connection.close()


@contextmanager
def working(node):
    """A worker that runs something; its name."""
    with sample.app.run(show_progress=False):
        call = sample.greet.spawn("somebody", seconds=600)
        wait_until(lambda: any(worker.state == "running" for worker in node.status().workers), "the worker")
        yield node.status().workers[0].worker
        call.cancel()


def python(node, worker, code, **more):
    return run_cli(node, "container", "exec", worker, "python3", "-c", code, **more)


def test_a_command_runs_beside_the_worker(node):
    with working(node) as worker:
        done = python(node, worker, "import os; print(os.getuid(), os.environ['POTLUCK_SANDBOX'], os.listdir('/app'))")
        assert done.stdout == "1000 1 ['tests']\n", done.stderr
        seen = python(node, worker, "import os; print(sum(p.isdigit() for p in os.listdir('/proc')))")
        assert int(seen.stdout) >= 3  # the zygote, the worker and itself
        assert python(node, worker, "raise SystemExit(7)").returncode == 7
        assert python(node, worker, "import os; os.kill(os.getpid(), 9)").returncode != 0
        echoed = python(node, worker, "import sys; sys.stdout.write(sys.stdin.read().upper())", stdin="typed")
        assert echoed.stdout == "TYPED"
        assert run_cli(node, "container", "exec", worker, "absent-program").returncode == 127


def test_it_has_the_sandboxs_bounds(node):
    with working(node) as worker:
        call = "import ctypes, os; print(ctypes.CDLL(None, use_errno=True).mount(0, 0, 0, 0, 0), ctypes.get_errno())"
        assert python(node, worker, call).stdout == "-1 1\n"
        status = python(node, worker, "print(open('/proc/self/status').read())").stdout
        facts = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
        assert (facts["CapEff"], facts["NoNewPrivs"], facts["Seccomp"]) == ("0000000000000000", "1", "2")
        assert python(node, worker, "open('/new', 'w')").returncode == 1


def test_a_terminal_is_made_inside(node):
    with working(node) as worker:
        ours, theirs = pty.openpty()
        words = ["container", "exec", worker, "python3", "-c", "import os; print(os.ttyname(0), input('say: '))"]
        process = subprocess.Popen(
            [sys.executable, "-m", "potluck.cli.main", *words],
            env=node.env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        try:
            read_until(ours, b"say: ")
            os.write(ours, b"hello\n")
            assert b"/dev/pts/0 hello" in read_until(ours, b"hello\r\n/dev/pts/0 hello\r\n")
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def processes(node, worker):
    return int(python(node, worker, "import os; print(sum(p.isdigit() for p in os.listdir('/proc')))").stdout)


def test_a_command_ends_with_whoever_asked_for_it(node):
    with working(node) as worker:
        before = processes(node, worker)
        process = subprocess.Popen(
            [sys.executable, "-m", "potluck.cli.main", "container", "exec", worker, "python3", "-c",
             "import time; print('begun', flush=True); time.sleep(600)"],
            env=node.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.readline() == b"begun\n"
        process.kill()
        process.communicate()
        wait_until(lambda: processes(node, worker) == before, "the command's end")


def test_others_workers_are_not_entered(mesh, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    caller, ann = mesh.caller(), mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding ann")
    use_node(caller)
    with sample.app.run(show_progress=False):
        call = sample.greet.spawn("somebody", seconds=600)
        wait_until(lambda: any(worker.state == "running" for worker in ann.status().workers), "the worker")
        (facts,) = json.loads(run_cli(ann, "container", "list", "--json").stdout)
        assert facts["own"] is False
        refused = python(ann, facts["worker"], "print(1)")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "works for somebody else" in refused.stderr
        silent = run_cli(ann, "container", "logs", facts["worker"])
        assert "does not work for you" in silent.stderr
        mine = run_cli(caller, "container", "logs", facts["worker"])
        assert mine.stdout == f"{facts['worker']} │ greeting somebody\n"
        elsewhere = python(caller, facts["worker"], "print(1)")
        assert "No worker named" in elsewhere.stderr
        call.cancel()
    calls._connection.close()
