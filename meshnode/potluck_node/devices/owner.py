"""What is known of the machine and of whoever sits at it. Thin: files are read, nothing is decided. Blocking.

Each source is one function; where it does not exist, or may not be read, its fact is None. `root` is where /proc, /sys
and /dev are, for tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from potluck_node.core.policy_rules import Facts

# A desktop that hangs must not hang the node, seconds.
COMMAND_TIMEOUT_S = 2.0
# Linux writes the time of a terminal's input down in steps of eight seconds (tty_update_time, drivers/tty/tty_io.c).
TTY_STEP_S = 8.0
# Terminals and processes that are looked at; a machine with more tells enough by these.
TTYS_MAX, PROCESSES_MAX = 256, 20_000


@dataclass
class Owner:
    """Remembers what differences are taken of."""

    home: Path
    root: Path = Path("/")
    _cpu: tuple[int, int, int] | None = None
    _inputs: list[int] = field(default_factory=list)
    _seen_input: float | None = None

    # Quick: a few times a second

    def idle_s(self) -> float | None:
        """Seconds since somebody typed or moved a mouse, as far as any source knows."""
        known = [found for found in (self._events_s(), self._ttys_s(), self._x11_s()) if found is not None]
        return min(known, default=None)

    def open_inputs(self) -> None:
        """Listen to keyboards and mice, where this user may (root, or the group input)."""
        for path in sorted((self.root / "dev/input").glob("event*"))[:TTYS_MAX]:
            with suppress(OSError):
                self._inputs.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def close(self) -> None:
        while self._inputs:
            os.close(self._inputs.pop())

    def _events_s(self) -> float | None:
        """Only that something came is looked at, never what."""
        if not self._inputs:
            return None
        now = time.monotonic()
        for file in list(self._inputs):
            try:
                while os.read(file, 4096):
                    self._seen_input = now
            except BlockingIOError:
                continue
            except OSError:
                self._inputs.remove(file)
                os.close(file)
        self._seen_input = self._seen_input or now
        return now - self._seen_input

    def _ttys_s(self) -> float | None:
        """Of consoles and terminals, as w(1) does. Those of sandboxes are below /dev/pts too: their input is ours."""
        found = []
        for folder, pattern in (("dev/pts", "[0-9]*"), ("dev", "tty[0-9]*")):
            for path in sorted((self.root / folder).glob(pattern))[:TTYS_MAX]:
                with suppress(OSError):
                    found.append(time.time() - path.stat().st_atime)
        return max(0.0, min(found)) if found else None

    def _x11_s(self) -> float | None:
        """Of the X screen that this node's environment names; Wayland tells its own compositor alone."""
        if not os.environ.get("DISPLAY") or not shutil.which("xprintidle"):
            return None
        said = _said("xprintidle")
        return int(said) / 1000 if said and said.isdecimal() else None

    # Slow: every few seconds

    def facts(self, processes: bool, cpu: bool = True) -> Facts:
        """All that is no matter of the moment. Every process is looked at for `processes`, the names of programs, and
        for `cpu`, what others take of it."""
        now = time.localtime()
        programs, ssh = self._programs() if processes else ((), None)
        on_battery, battery = self._battery()
        return Facts(
            week_minute=now.tm_wday * 1440 + now.tm_hour * 60 + now.tm_min,
            ssh_sessions=ssh,
            fullscreen=self._fullscreen() if processes else None,
            programs=programs,
            on_battery=on_battery,
            battery=battery,
            lid_closed=self._lid(),
            others_cpu_milli=self._others_cpu() if cpu else None,
            memory_free_mib=self._memory_free(),
            disk_free_gib=self._disk_free(),
            cpu_temp_c=self._cpu_temp(),
        )

    def metered(self) -> bool | None:
        """What NetworkManager says: 1 and 3 are yes and guessed yes (NMMetered)."""
        if not shutil.which("busctl"):
            return None
        name = "org.freedesktop.NetworkManager"
        said = _said("busctl", "get-property", name, "/org/freedesktop/NetworkManager", name, "Metered")
        return said.split()[1] in ("1", "3") if said and len(said.split()) == 2 else None

    def _programs(self) -> tuple[tuple[str, ...], int]:
        """Names of all programs, and how many came in by ssh."""
        names, sessions = set(), 0
        for folder in self._processes():
            with suppress(OSError):
                name = (folder / "comm").read_text().strip()
                names.add(name)
                if name.startswith("sshd"):
                    # "sshd: ann@pts/0" is a session; "sshd: ann [priv]" and the listener are not.
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    sessions += "@" in line and "[" not in line
        return tuple(sorted(names)), sessions

    def _processes(self) -> Iterator[Path]:
        found = (each for each in (self.root / "proc").iterdir() if each.name.isdecimal())
        for _, folder in zip(range(PROCESSES_MAX), found, strict=False):
            yield folder

    def _fullscreen(self) -> str | None:
        """The window in front, if it fills the screen (X11)."""
        if not os.environ.get("DISPLAY") or not shutil.which("xprop"):
            return None
        active = (_said("xprop", "-root", "_NET_ACTIVE_WINDOW") or "").rpartition("# ")[2].split(",")[0]
        if not active.startswith("0x") or active == "0x0":
            return ""
        said = _said("xprop", "-id", active, "_NET_WM_STATE", "WM_CLASS") or ""
        return said.rpartition('"')[0].rpartition('"')[2] if "_NET_WM_STATE_FULLSCREEN" in said else ""

    def _battery(self) -> tuple[bool | None, float | None]:
        """Whether it feeds the machine, and how full it is; the fullest of several."""
        online, charges = None, []
        for supply in sorted((self.root / "sys/class/power_supply").glob("*")):
            kind = _line(supply / "type")
            if kind == "Mains" and (said := _line(supply / "online")):
                online = online or said == "1"
            if kind == "Battery" and _line(supply / "scope") != "Device" and (said := _line(supply / "capacity")):
                charges.append(int(said) / 100)
        if not charges:
            return (False if online else None), None
        return (None if online is None else not online), max(charges)

    def _lid(self) -> bool | None:
        states = [_line(path) for path in (self.root / "proc/acpi/button/lid").glob("*/state")]
        return any("closed" in (state or "") for state in states) if states else None

    def _others_cpu(self) -> int | None:
        """Of all processors, in thousandths, since the last look: what is busy less what this node and all below it
        used. proc(5): /proc/stat has busy and idle ticks, /proc/pid/stat those of a process and of children that ended.
        """
        line = (_line(self.root / "proc/stat") or "").split()
        if len(line) < 9:
            return None
        ticks = [int(word) for word in line[1:9]]
        total, idle, ours = sum(ticks), ticks[3] + ticks[4], self._own_ticks()
        before, self._cpu = self._cpu, (total, idle, ours)
        if before is None or total <= before[0]:
            return None
        busy = (total - before[0]) - (idle - before[1]) - max(0, ours - before[2])
        return max(0, min(1000, busy * 1000 // (total - before[0])))

    def _own_ticks(self) -> int:
        parents, used = {}, {}
        for folder in self._processes():
            with suppress(OSError, IndexError, ValueError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                used[int(folder.name)] = sum(map(int, fields[11:15]))
        return sum(ticks for pid, ticks in used.items() if _is_below(pid, os.getpid(), parents))

    def _memory_free(self) -> int | None:
        with suppress(OSError):
            for line in (self.root / "proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) // 1024
        return None

    def _disk_free(self) -> float | None:
        with suppress(OSError):
            return shutil.disk_usage(self.home).free / (1 << 30)
        return None

    def _cpu_temp(self) -> float | None:
        """The hottest zone that is the processor's."""
        found = []
        for zone in (self.root / "sys/class/thermal").glob("thermal_zone*"):
            if any(word in (_line(zone / "type") or "").lower() for word in ("cpu", "pkg", "core", "k10temp")):
                with suppress(ValueError, TypeError):
                    found.append(int(_line(zone / "temp") or "") / 1000)
        return max(found, default=None)


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    for _ in range(len(parents)):  # the table may change while it is read: no endless walk
        if pid == root:
            return True
        if pid not in parents:
            return False
        pid = parents[pid]
    return False


def _line(path: Path) -> str | None:
    try:
        return path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return None


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
