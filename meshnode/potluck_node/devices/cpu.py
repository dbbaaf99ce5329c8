"""The processor: always there."""

from __future__ import annotations

import re
from pathlib import Path

from potluck_node.machine import cores, machine


def describe_cpu(root: Path = Path("/")) -> str:
    """One line for the owner: model and cores."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"CPU: {named[1].strip() if named else machine()}, {cores()} cores for this node."
