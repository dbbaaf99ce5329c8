"""A machine that somebody comes back to: nothing new begins, what runs has its grace and goes on elsewhere."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest
from tests import fake_logind
from tests.e2e import sample, yield_sample
from tests.e2e.mesh import PATIENCE_S, Mesh, Node, run_cli, wait_until

from potluck import calls
from potluck_ledger.journal import verify


@pytest.fixture(autouse=True)
def fresh_connection(monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)


@pytest.fixture
def terminal():
    """A terminal at which the test sits: `touch()` is a key pressed there."""
    main, other = pty.openpty()

    def touch():
        os.write(main, b"x\n")
        os.read(other, 16)

    yield touch
    os.close(main)
    os.close(other)


def codes(node):
    return [reason.code for reason in node.status().policy]


def with_policy(mesh: Mesh, name: str, text: str) -> Node:
    home = mesh.folder / name
    home.mkdir(mode=0o711)
    (home / "config.toml").write_text(f"[policy]\n{text}\n")
    return mesh.provider(name)


def test_the_owner_returns_and_the_call_goes_on_elsewhere_from_what_it_saved(mesh, use_node, terminal):
    caller = mesh.caller()
    ann = with_policy(mesh, "ann", "idle_s = 12\ngrace_s = 3")
    terminal()
    wait_until(lambda: codes(ann) == ["user-active"], "seeing the terminal")
    assert run_cli(ann, "policy", "explain").stdout.startswith("It takes no work of others now")
    wait_until(lambda: codes(ann) == [], "nobody having typed for a while")
    wait_until(lambda: any(peer.state == "open" for peer in caller.status().peers), "ann lending")
    use_node(caller)
    with yield_sample.app.run(show_progress=False):
        call = yield_sample.train.spawn(200)
        wait_until(lambda: any(worker.state == "running" for worker in ann.status().workers), "ann at work")
        bob = mesh.provider("bob")
        wait_until(lambda: {"ann", "bob"} <= {peer.name for peer in caller.status().peers}, "finding bob")
        terminal()
        wait_until(lambda: ann.status().paused == "the owner returned", "no new work")
        wait_until(lambda: not ann.status().workers, "the end of the grace")
        wait_until(lambda: any(worker.state == "running" for worker in bob.status().workers), "bob at work instead")
        begun, told = call.get(timeout=PATIENCE_S)
        assert told
        assert 0 < begun < 200


def test_explain_simulate_set_pause_drain_and_panic(mesh, monkeypatch):
    ann = with_policy(mesh, "ann", 'preset = "idle"\nidle_s = 0\nwindows = { sat = ["00:00-24:00"] }')
    bob = mesh.provider("bob")

    def simulated(*assumed):
        done = run_cli(ann, "policy", "simulate", "--json", *assumed)
        assert done.returncode == 0, done.stderr
        return [reason["code"] for reason in json.loads(done.stdout)["reasons"]]

    quiet = ("--assume", "others_cpu_milli=0", "--assume", "ssh_sessions=0", "--assume", "memory_free_mib=9000",
             "--assume", "disk_free_gib=99", "--assume", "on_battery=false", "--assume", "cpu_temp_c=40")  # fmt: skip
    assert simulated("--at", "sat-14:00", *quiet) == []
    assert simulated("--at", "sun-14:00", *quiet) == ["outside-window"]
    assert "game" in simulated("--game", *quiet)
    assert "no fact 'weather'" in run_cli(ann, "policy", "simulate", "--assume", "weather=rain").stderr
    assert "Nothing is assumed" in run_cli(ann, "policy", "simulate").stderr
    # Another policy counts at once, and the rest of the file stays.
    file = ann.home / "config.toml"
    file.write_text(f"# mine\n{file.read_text()}")
    assert run_cli(ann, "policy", "set", "idle_s", "1e9", "exclusive", "blender, steam").returncode == 0
    assert file.read_text().startswith("# mine\n[policy]\npreset")
    assert not {"user-active", "presence-unknown"}.isdisjoint(codes(ann))
    assert "Right would be: seconds" in run_cli(ann, "policy", "set", "idle_s", "soon").stderr
    assert "0.5" in run_cli(ann, "policy", "unset", "exclusive", "others_cpu").stdout
    assert "exclusive" not in file.read_text()
    monkeypatch.setenv("VISUAL", "sed -i s/idle_s.*/idle_s=0/")
    shown = run_cli(ann, "policy", "edit", stdin="y\n").stdout
    assert "under this policy, now" in shown
    assert json.loads(run_cli(ann, "policy", "show", "--json").stdout)["policy"]["idle_s"] == "0.0"
    assert {"user-active", "presence-unknown"}.isdisjoint(codes(ann))
    # A server does as its owner says, and for as long.
    assert run_cli(bob, "pause", "1h").stdout == "Paused for 1h.\n"
    wait_until(lambda: codes(bob) == ["paused"], "the pause")
    run_cli(bob, "resume")
    wait_until(lambda: codes(bob) == [] and not bob.status().paused, "going on")
    assert "no length of time" in run_cli(bob, "pause", "later").stderr
    assert run_cli(bob, "pause", "1s").returncode == 0
    wait_until(lambda: not bob.status().paused, "the end of the pause")
    run_cli(bob, "drain")
    wait_until(lambda: codes(bob) == ["draining"], "draining")
    run_cli(bob, "panic")
    wait_until(lambda: codes(bob)[0] == "panic", "the panic")
    run_cli(bob, "resume")
    wait_until(lambda: codes(bob) == [], "going on")


def test_whoever_sits_at_the_machine_may_use_it(mesh, use_node, terminal):
    ann = with_policy(mesh, "ann", "idle_s = 600")
    terminal()
    wait_until(lambda: codes(ann) == ["user-active"], "seeing the terminal")
    use_node(ann)
    with sample.app.run(show_progress=False):
        assert sample.add.remote(1, 2) == 3


def test_a_gpu_that_gets_too_warm_is_given_back_and_the_call_goes_on_with_the_other(mesh, use_node, machine):
    caller = mesh.caller()
    flags = ("--cpus", "4", "--memory-mib", "4096", "--device-root", str(machine.root))
    ann = mesh.node("ann", *flags, env=machine.env)

    def states():
        return [gpu.state for gpu in ann.status().gpus]

    assert run_cli(ann, "policy", "set", "gpu_temp_c", "80", "grace_s", "3", "gpu_off", "1").returncode == 0
    wait_until(lambda: states() == ["free", "is not lent by its owner"], "lending one")
    wait_until(lambda: caller.status().peers and caller.status().peers[0].gpus, "finding the GPUs")
    use_node(caller)
    with yield_sample.app.run(show_progress=False):
        call = yield_sample.Keeper().work.spawn(9.0)
        wait_until(lambda: any(worker.state == "running" for worker in ann.status().workers), "ann at work")
        assert states()[0] == "leased"
        run_cli(ann, "policy", "set", "gpu_off", "[]")
        machine.say("gpu 0 temperature 90")
        wait_until(lambda: states() == ["held back by the owner", "leased"], "the other GPU")
        shown = json.loads(run_cli(ann, "policy", "explain", "--json").stdout)
        assert [(each["code"], each["gpu"]) for each in shown["reasons"]] == [("gpu-hot", machine.uuid(0))]
        assert shown["works"]
        assert call.get(timeout=PATIENCE_S) == machine.uuid(1)
        # Its exit method ran within its grace, in the sandbox that had the GPU.
        assert yield_sample.saves.get("left") == machine.uuid(0)


@pytest.mark.skipif(bool(fake_logind.missing()), reason=fake_logind.missing())
def test_before_the_machine_sleeps_what_runs_saves_and_its_receipt_is_written(mesh, use_node):
    logind = fake_logind.FakeLogind(mesh.folder)
    try:
        caller = mesh.caller()
        ann = mesh.node("ann", "--cpus", "1", "--memory-mib", "1024", env=logind.env)
        wait_until(lambda: logind.held, "the machine waiting for its node")
        use_node(caller)
        with yield_sample.app.run(show_progress=False):
            call = yield_sample.train.spawn(100)
            wait_until(lambda: any(worker.state == "running" for worker in ann.status().workers), "ann at work")
            logind.prepare("Sleep", True)
            wait_until(lambda: not logind.held, "the machine going to sleep")
            assert codes(ann) == ["suspending"]
            assert not ann.status().workers
            (receipt,) = [entry.receipt for entry in verify(*ann.journal())]
            assert receipt.lease_us > 0
            logind.prepare("Sleep", False)
            begun, told = call.get(timeout=PATIENCE_S)
        assert told
        assert 0 < begun < 100
        assert logind.held
    finally:
        logind.stop()


def test_the_first_start_asks_five_questions_and_lends(tmp_path):
    node = Node(tmp_path, "new")
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "potluck.cli.main", "up"], env=node.env | {"TERM": "xterm"}, stdin=other, stdout=other,
        stderr=other,
    )  # fmt: skip
    os.close(other)
    said: list[str] = []

    def read():
        try:
            while data := os.read(main, 4096):
                said.append(data.decode(errors="replace"))
        except OSError:  # it has ended
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number, answer in enumerate(("", "cpus", "always", "7", "firstborn"), 1):
            wait_until(lambda number=number: f"{number}." in "".join(said), f"question {number}")
            time.sleep(0.1)  # the prompt is printed after its list
            os.write(main, f"{answer}\n".encode())
        assert process.wait(PATIENCE_S) == 0, "".join(said)
    finally:
        process.kill()
        reader.join(5)
        os.close(main)
    try:
        status = node.status()
        assert (status.name, status.offering, status.gpus) == ("firstborn", True, ())
        assert re.search(r"store_gib = 7\n", (node.home / "config.toml").read_text())
    finally:
        run_cli(node, "down")
