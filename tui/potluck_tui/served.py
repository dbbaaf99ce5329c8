"""The terminal as `web` starts it for each window: textual speaks to the browser through its pipes."""

from __future__ import annotations

import ctypes
import signal
import sys

from potluck_tui.app import PotluckApp
from potluck_tui.main import source_of

# prctl(2). Without its server textual would read the end of its input for ever, at half a core, and it catches SIGTERM.
PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    PotluckApp(source_of(demo="--demo" in sys.argv)).run()
