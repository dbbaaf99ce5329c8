"""Sandboxes without a function: commands, streams, files, ports, names, and their end."""

import asyncio
import socket
import urllib.request

import pytest
from tests.e2e.mesh import Mesh, wait_until

import potluck
from potluck import Probe, Sandbox, calls, errors

APP = potluck.App.lookup("boxes", create_if_missing=True)
SERVER = """
import functools, http.server
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/tmp")
http.server.test(handler, port=8000, bind="127.0.0.1")
"""
# The default image has a shell, and Python; and little else.
PYTHON = ("python3", "-c")
SLEEP = (*PYTHON, "import time; time.sleep(600)")
CAT = """
import shutil, sys
shutil.copyfileobj(open(sys.argv[1], "rb") if sys.argv[1:] else sys.stdin.buffer, sys.stdout.buffer)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    made = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield made.node("ann", "--cpus", "8", "--memory-mib", "8192")
    finally:
        made.stop()


@pytest.fixture
def here(node, use_node, monkeypatch):
    """A node that runs sandboxes itself."""
    monkeypatch.setattr(calls, "_connection", None)
    yield use_node(node)
    for each in Sandbox.list():
        each.terminate()
    if calls._connection:
        calls._connection.close()


def test_a_command_runs_and_what_it_printed_is_read_after_its_end(here):
    box = Sandbox.create("sh", "-c", "echo out; echo err >&2; exit 3", app=APP, timeout=60)
    assert box.returncode is None
    box.wait()
    assert (box.returncode, box.poll()) == (3, 3)
    assert (box.stdout.read(), box.stderr.read()) == ("out\n", "err\n")
    assert Sandbox.from_id(box.object_id).stdout.read() == "out\n"


def test_commands_are_run_in_one_that_waits(here):
    box = Sandbox.create(app=APP, timeout=120, env={"COLOR": "red"})
    process = box.exec("sh", "-c", "read line; echo $COLOR $SIZE $line; exit 4", env={"SIZE": "large"})
    assert process.poll() is None
    with pytest.raises(ValueError, match="wait"):
        _ = process.returncode
    process.stdin.write("typed\n")
    process.stdin.write_eof()
    process.stdin.drain()
    assert process.wait() == process.returncode == 4
    assert process.stdout.read() == "red large typed\n"
    # All see one file system, which is that of the sandbox alone.
    assert box.exec("sh", "-c", "echo kept > /tmp/file; kill -9 $$").wait() == 137
    assert list(box.exec(*PYTHON, CAT, "/tmp/file").stdout) == ["kept\n"]
    other = Sandbox.create(app=APP, timeout=120)
    assert other.exec(*PYTHON, CAT, "/tmp/file").wait() == 1
    assert box.poll() is None
    assert box.terminate(wait=True) == 137
    with pytest.raises(errors.SandboxTerminatedError):
        box.wait()
    box.wait(raise_on_termination=False)
    with pytest.raises(errors.NotFoundError, match="ended"):
        box.exec("sh")


def test_large_output_and_input_are_whole_and_lines_come_as_they_are_printed(here):
    box = Sandbox.create(app=APP, timeout=120)
    process = box.exec(*PYTHON, CAT, text=False)
    data = bytes(range(256)) * 12_000
    process.stdin.write(data)
    process.stdin.write_eof()
    process.stdin.drain()
    got = bytearray()
    for piece in process.stdout:
        got += piece
        if len(got) >= len(data):
            break
    assert bytes(got[: len(data)]) == data
    printing = box.exec(*PYTHON, "import time; print('one', flush=True); time.sleep(600)")
    assert next(iter(printing.stdout)) == "one\n"
    both = box.exec("sh", "-c", "echo a; echo b", pty=True)
    assert both.stdout.read() == "a\r\nb\r\n"


def test_a_command_that_cannot_be_run_or_takes_too_long_is_said(here):
    box = Sandbox.create(app=APP, timeout=120)
    with pytest.raises(errors.InvalidError, match="'nonsense' cannot be run"):
        box.exec("nonsense")
    slow = box.exec(*SLEEP, timeout=1)
    with pytest.raises(errors.ExecTimeoutError):
        slow.wait()
    missing = Sandbox.create("nonsense", app=APP, timeout=60)
    with pytest.raises(errors.InvalidError, match="'nonsense' cannot be run"):
        missing.wait()


def test_many_commands_leave_no_open_files_and_the_last_ones_are_known(here):
    box = Sandbox.create(app=APP, timeout=300)
    processes = [box.exec("sh", "-c", f"echo {number}") for number in range(400)]
    assert [each.stdout.read() for each in processes[-20:]] == [f"{number}\n" for number in range(380, 400)]
    with pytest.raises(errors.NotFoundError):
        processes[0].wait()
    terminals = [box.exec("sh", "-c", "echo $0", pty=True) for _ in range(150)]
    assert terminals[-1].stdout.read() == "sh\r\n"
    # The agent's own: its parent has none of what it opened.
    count = "import os; print(len(os.listdir(f'/proc/{os.getppid()}/fd')))"
    assert int(box.exec(*PYTHON, count).stdout.read()) < 350


def test_files_are_written_read_listed_and_removed(here, tmp_path):
    files = Sandbox.create(app=APP, timeout=120).filesystem
    files.write_text("grüße", "/tmp/a/b/c.txt")
    data = bytes(1 << 20) + b"end"
    (tmp_path / "large").write_bytes(data)
    files.copy_from_local(tmp_path / "large", "/tmp/a/large")
    files.copy_to_local("/tmp/a/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == files.read_bytes("/tmp/a/large") == data
    assert files.read_text("/tmp/a/b/c.txt") == "grüße"
    assert [(each.name, each.type, each.size) for each in files.list_files("/tmp/a")][1] == ("large", "file", len(data))
    assert files.stat("/tmp/a").is_dir()
    files.make_directory("/tmp/a/d")
    files.write_text("", "/tmp/a/empty")
    assert files.stat("/tmp/a/empty").size == 0
    with pytest.raises(errors.SandboxFilesystemDirectoryNotEmptyError):
        files.remove("/tmp/a")
    files.remove("/tmp/a", recursive=True)
    with pytest.raises(errors.SandboxFilesystemNotFoundError):
        files.stat("/tmp/a")
    with pytest.raises(errors.SandboxFilesystemIsADirectoryError):
        files.read_bytes("/tmp")
    with pytest.raises(errors.InvalidError, match="absolute"):
        files.stat("here")


def test_a_port_is_reached_once_it_is_ready(here):
    box = Sandbox.create(
        "python3", "-c", SERVER, app=APP, timeout=120, encrypted_ports=[8000], readiness_probe=Probe.with_tcp(8000)
    )
    box.wait_until_ready(timeout=60)
    url = box.tunnels()[8000].url
    box.filesystem.write_bytes(b"x" * 3_000_000, "/tmp/page")
    with urllib.request.urlopen(f"{url}/page", timeout=60) as answer:
        assert answer.read() == b"x" * 3_000_000
    host, port = box.tunnels()[8000].tcp_socket
    box.terminate(wait=True)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, port), 10)


def test_names_and_tags_find_those_that_run(here):
    box = Sandbox.create(app=APP, timeout=120, name="only", tags={"kind": "a"})
    assert Sandbox.from_name("boxes", "only").object_id == box.object_id
    with pytest.raises(errors.AlreadyExistsError, match="only"):
        Sandbox.create(app=APP, name="only")
    box.set_tags({"kind": "b", "size": "1"})
    assert box.get_tags() == {"kind": "b", "size": "1"}
    assert [each.object_id for each in Sandbox.list(tags={"size": "1"})] == [box.object_id]
    assert not list(Sandbox.list(tags={"kind": "a"}))
    box.terminate(wait=True)
    with pytest.raises(errors.NotFoundError, match="only"):
        Sandbox.from_name("boxes", "only")


def test_its_time_and_idleness_end_it(here):
    late = Sandbox.create(*PYTHON, "import time; print('before', flush=True); time.sleep(600)", app=APP, timeout=2)
    idle = Sandbox.create(app=APP, timeout=120, idle_timeout=1)
    with pytest.raises(errors.SandboxTimeoutError):
        late.wait()
    assert (late.returncode, late.stdout.read()) == (124, "before\n")
    with pytest.raises(errors.SandboxTerminatedError, match="idle"):
        idle.wait()


def test_all_of_it_in_asyncio(here):
    async def use():
        box = await Sandbox.create.aio("sh", "-c", "for i in 1 2 3; do echo $i; done", app=APP, timeout=60)
        lines = [line async for line in box.stdout]
        await box.wait.aio()
        waiting = await Sandbox.create.aio(app=APP, timeout=60)
        processes = await asyncio.gather(*(waiting.exec.aio("sh", "-c", f"exit {code}") for code in range(5)))
        codes = await asyncio.gather(*(process.wait.aio() for process in processes))
        await waiting.terminate.aio()
        return lines, codes

    assert asyncio.run(use()) == (["1\n", "2\n", "3\n"], [0, 1, 2, 3, 4])


def test_a_sandbox_whose_node_was_killed_is_lost_and_does_not_run_again(here):
    box = Sandbox.create(app=APP, timeout=120)
    box.exec("sh", "-c", ":").wait()
    here.kill()
    here.start()
    with pytest.raises(errors.Error, match="ended"):
        box.wait()
    wait_until(lambda: not here.status().calls, "its end")


def test_what_cannot_be_is_said(here):
    with pytest.raises(errors.InvalidError, match="needs an app"):
        Sandbox.create("true")
    with pytest.raises(errors.InvalidError, match="cannot last"):
        Sandbox.create("true", app=APP, timeout=0)
    with pytest.raises(errors.InvalidError, match="begin with sb-"):
        Sandbox.from_id("nonsense")
    with pytest.raises(errors.NotFoundError, match="no call"):
        Sandbox.from_id("sb-unknown").wait()
    with pytest.raises(errors.InvalidError, match="for functions"):
        potluck.forward(80)


def test_on_a_peer_that_is_not_trusted_it_runs_without_secrets_and_ports(trio_of_nodes, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    use_node(trio_of_nodes.nodes[0])
    box = Sandbox.create(app=APP, timeout=120, encrypted_ports=[8000])
    assert box.exec(*PYTHON, "print(1 + 1)").stdout.read() == "2\n"
    with pytest.raises(errors.RefusedError, match="Secrets are not sent"):
        box.exec("sh", secrets=[potluck.Secret.from_dict({"TOKEN": "x"})])
    with pytest.raises(errors.RefusedError, match="not trusted"):
        box.tunnels()
    # Its files come as an image, from there.
    assert box.exec("sh", "-c", "echo kept > /kept").wait() == 0
    image = box.snapshot_filesystem()
    box.terminate()
    look = Sandbox.create(*PYTHON, "print(open('/kept').read())", app=APP, image=image, timeout=60)
    assert look.stdout.read() == "kept\n\n"
    calls._connection.close()


WRITE = """
import os
os.makedirs("/data")
with open("/data/kept", "w") as file:
    file.write("kept")
with open("/etc/added", "w") as file:
    file.write("added")
with open("/tmp/not", "w") as file:
    file.write("not")
os.remove("/data/gone") if os.path.exists("/data/gone") else open("/data/gone", "w").close()
"""
LOOK = 'import os; print(sorted(os.listdir("/data")), open("/etc/added").read(), os.listdir("/tmp"))'
seen = potluck.App("seen")


@seen.function(serialized=True)
def look():
    import os

    return sorted(os.listdir("/data"))


def test_what_is_written_to_its_root_becomes_an_image(here):
    box = Sandbox.create(app=APP, timeout=120)
    assert box.exec(*PYTHON, WRITE).wait() == 0
    image = box.snapshot_filesystem()
    # What is written later is in another one.
    assert box.exec(*PYTHON, WRITE.replace("os.makedirs", "os.listdir")).wait() == 0
    second = box.snapshot_filesystem(ttl=None)
    box.terminate(wait=True)
    assert image.object_id != second.object_id
    again = Sandbox.create(*PYTHON, LOOK, app=APP, image=potluck.Image.from_id(image.object_id), timeout=60)
    assert again.stdout.read() == "['gone', 'kept'] added []\n"
    assert Sandbox.create(*PYTHON, LOOK, app=APP, image=second, timeout=60).stdout.read() == "['kept'] added []\n"
    # No other sandbox sees anything of it.
    plain = Sandbox.create(*PYTHON, 'import os; print(os.path.exists("/data"))', app=APP, timeout=60)
    assert plain.stdout.read() == "False\n"


def test_functions_run_in_a_snapshot(here):
    box = Sandbox.create(app=APP, timeout=120)
    assert box.exec(*PYTHON, WRITE).wait() == 0
    image = box.snapshot_filesystem()
    app = potluck.App("in-a-snapshot")
    looking = app.function(image=image, serialized=True)(look.get_raw_f())
    with app.run():
        assert looking.remote() == ["gone", "kept"]


def test_a_snapshot_with_a_secret_is_refused(here):
    secret = potluck.Secret.from_dict({"TOKEN": "very-secret-token"})
    box = Sandbox.create(app=APP, timeout=120, secrets=[secret])
    assert box.exec("sh", "-c", "echo $TOKEN > /file").wait() == 0
    with pytest.raises(errors.ImageBuildError, match="TOKEN"):
        box.snapshot_filesystem()
    with pytest.raises(errors.InvalidError, match="above 0"):
        box.snapshot_filesystem(ttl=0)
