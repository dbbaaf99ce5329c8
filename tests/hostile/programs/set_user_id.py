"""Runs set-user-id programs of the image, and one that it made itself."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import shutil
import subprocess


def attack() -> list[int]:
    """Which effective users it became."""
    shutil.copy("/usr/bin/id", "/tmp/id")
    os.chmod("/tmp/id", 0o6755)
    said = [run("/tmp/id", "-u"), run("/open/id", "-u")]
    return [int(text) for text in said if text.strip().isdigit()]


def run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout
    except OSError:
        return ""
