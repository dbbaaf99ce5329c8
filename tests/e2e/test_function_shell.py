"""`potluck shell FILE.py::f`: the function's own sandbox, with a command in place of the function."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.mesh import PATIENCE_S, Mesh, run_cli

ROOT = Path(__file__).resolve().parent.parent.parent
PLACE = "tests/e2e/sample.py::environment"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield mesh.node("ann", "--cpus", "1", "--memory-mib", "1024")
    finally:
        mesh.stop()


def in_shell(node, code, place=PLACE):
    return run_cli(node, "shell", place, "--cmd", f"python3 -c '{code}'", cwd=ROOT)


def test_it_is_the_functions_sandbox(node):
    looked = in_shell(node, 'import os; print(os.environ["GREETING"], os.getuid(), sorted(os.listdir("/app")))')
    assert looked.stdout == "hello 1000 ['sample.py']\n", looked.stderr


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ('open("/app/new.py", "w")', "Read-only file system"),
        ('open("/etc/shadow")', "No such file or directory"),
        ("import socket; socket.create_connection((\"127.0.0.1\", 1), 2)", "Connection refused"),
        ("import ctypes, os; r = ctypes.CDLL(None, use_errno=True).mount(0, 0, 0, 0, 0); "
         "raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))", "Operation not permitted"),
    ],
    ids=["image", "host", "network", "system calls"],
)  # fmt: skip
def test_it_has_the_functions_bounds(node, attempt, error):
    done = in_shell(node, attempt)
    assert done.returncode == 1
    assert error in done.stdout + done.stderr


def test_it_has_the_functions_memory(node):
    done = in_shell(node, "len(bytearray(3 << 30))", "tests/e2e/sample.py::add")
    assert done.returncode != 0
    assert "MemoryError" in done.stdout or "out of memory" in done.stderr


def test_the_exit_status_is_the_commands(node):
    assert in_shell(node, "raise SystemExit(7)").returncode == 7
    assert run_cli(node, "shell", PLACE, "--cmd", "absent-program", cwd=ROOT).returncode == 127


def test_a_terminal_is_made_inside(node):
    """Ctrl-C interrupts what runs in there, not the command."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-m", "potluck.cli.main", "shell", PLACE],
        env=node.env, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        read_until(ours, b"$ ")
        os.write(ours, b"exec python3 -q\n")
        read_until(ours, b">>> ")
        os.write(ours, b"import os, time; print('count' + 'ing'); time.sleep(600)\n")
        read_until(ours, b"counting")
        os.write(ours, b"\x03")
        read_until(ours, b"KeyboardInterrupt")
        os.write(ours, b"print(os.isatty(0), os.ttyname(0), 6 * 7)\n")
        assert b"True /dev/pts/0 42" in read_until(ours, b" 42\r\n")
        os.write(ours, b"raise SystemExit(3)\n")
        assert shell.wait(PATIENCE_S) == 3
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def read_until(terminal, words):
    seen = b""
    while words not in seen:
        assert select.select([terminal], [], [], PATIENCE_S)[0], seen
        seen += os.read(terminal, 4096)
    return seen


def test_an_entrypoint_has_no_sandbox(node):
    done = run_cli(node, "shell", "tests/e2e/app_sample.py::leave_a_note", cwd=ROOT)
    assert done.returncode == 1
    assert "runs on this machine itself" in done.stderr


def test_a_class_has_a_sandbox_too(node):
    looked = in_shell(node, 'import os; print(os.listdir("/app"))', "tests/e2e/app_sample.py::Counter")
    assert looked.stdout == "['app_sample.py']\n", looked.stderr
