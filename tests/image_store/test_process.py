"""Programs of a build, and what becomes of them when it ends or is killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from potluck_images.errors import ImageBuildError
from potluck_images.process import Ended, run

# A program that leaves another behind, as one that starts sandboxes does when it is killed.
LEAVES = ("sh", "-c", "sleep 600 & echo $!; wait")
BUILD = f"""
from potluck_images.process import run
run({LEAVES!r}, lambda line: print(line, flush=True), 60)
"""


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid):
    deadline = time.monotonic() + 30
    while is_there(pid):
        assert time.monotonic() < deadline


def test_status_and_lines():
    said = []
    ended = run(("sh", "-c", "echo one; echo two >&2; exit 3"), said.append, 60)
    assert ended == Ended(3, ("one", "two"))
    assert said == ["one", "two"]


def test_what_is_left_behind_ends_with_the_program():
    said = []
    assert run(("sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"), said.append, 60).status == 0
    ends(int(said[0]))


def test_what_it_started_ends_at_the_time_limit():
    said = []
    with pytest.raises(ImageBuildError):
        run(LEAVES, said.append, 1)
    ends(int(said[0]))


def test_what_it_started_ends_with_a_killed_builder():
    builder = subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE)
    pid = int(builder.stdout.readline())
    assert is_there(pid)
    builder.kill()
    builder.wait()
    builder.stdout.close()
    ends(pid)
