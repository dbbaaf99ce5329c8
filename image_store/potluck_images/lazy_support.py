"""Whether this machine can show images lazily. Imports nothing that may be missing."""

from __future__ import annotations

import importlib.util
import os
import shutil

DEVICE = "/dev/fuse"


def why_not() -> str:
    """What is missing and what to do about it; empty when images can be mounted, as far as can be told beforehand."""
    if importlib.util.find_spec("pyfuse3") is None:
        return "the package pyfuse3 is missing (apt install libfuse3-dev pkg-config gcc; pip install 'potluck[lazy]')"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{DEVICE} cannot be opened: {error.strerror}"
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        return "fusermount3 is missing (apt install fuse3)"
    return ""
