"""A whole evening in a real terminal: tmux shows what a person would see, and types what they would."""

import os
import shutil
import subprocess
import sys
import textwrap
import time

import pytest
from tests.e2e.mesh import wait_until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed; .ci/setup dev does"),
]

PATIENCE_S = 60
CALLER = textwrap.dedent("""
    from tests.e2e import sample
    with sample.app.run(show_progress=False):
        print(sum(sample.add.map(range(40), range(40))), flush=True)
        sample.sleep.remote(300)
""")


class Tmux:
    """A terminal of 80x24 with a shell in it, on a server of its own."""

    def __init__(self, folder, env):
        self._socket = str(folder / "tmux")
        self._env = {**env, "TERM": "xterm-256color", "PS1": "$ "}
        self("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "env PS1='$ ' sh")

    def __call__(self, *arguments):
        command = ["tmux", "-S", self._socket, *arguments]
        return subprocess.run(command, env=self._env, check=True, capture_output=True, text=True).stdout

    def type(self, *keys):
        self("send-keys", *keys)

    def until(self, *words):
        """Wait for a screen with all of these, and give it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            screen = self("capture-pane", "-p")
            if all(word in screen for word in words):
                return screen
            assert time.monotonic() < deadline, f"{words} did not come:\n{screen}"
            time.sleep(0.05)


def test_start_look_work_pause_resume_and_quit(mesh, tmp_path):
    ann, bob = mesh.provider("ann"), mesh.caller("bob")
    tmux = Tmux(tmp_path, ann.env | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"})
    client = None
    try:
        tmux.type("potluck tui", "Enter")
        screen = tmux.until("Lends 1 core", "Nobody uses this machine now.", "? Help")
        assert "ann · mesh local" in screen.splitlines()[0]
        wait_until(lambda: bob.status().peers, "finding ann")
        client = subprocess.Popen([sys.executable, "-c", CALLER], env=bob.env, stdout=subprocess.PIPE)
        # 40 inputs, then one that stays.
        assert client.stdout.readline() == b"1560\n"
        tmux.until("sleep", "running", "1 of 1 in use")
        tmux.type("p")
        tmux.until("Paused: no new work, 1 input still running.", "paused by the owner")
        assert ann.status().paused
        tmux.type("r")
        tmux.until("Lends 1 core")
        assert not ann.status().paused
        tmux.type("n")
        tmux.until("Pause now?", "1 input of others would start again elsewhere.")
        tmux.type("y")
        tmux.until("Paused: no new work.", "Nobody uses this machine now.", "run for others")
        tmux.type("6")
        tmux.until("→ ")
        tmux.type("q")
        screen = tmux.until("$")
        assert "Paused" not in screen
        assert ann.status().paused
    finally:
        if client:
            client.kill()
            client.wait()
            client.stdout.close()
        tmux("kill-server")
