"""A fake systemd-logind on a message bus of its own: tells that the machine sleeps, and sees who makes it wait."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from jeepney import DBus, DBusAddress, HeaderFields, MessageType, new_error, new_method_return, new_signal
from jeepney.io.blocking import open_dbus_connection

NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
MANAGER = DBusAddress(PATH, NAME, f"{NAME}.Manager")
DESKTOP = f"{PATH}/session/_31"


def missing() -> str:
    """Why it cannot run here, or ""."""
    return "" if shutil.which("dbus-daemon") else "dbus-daemon is not installed (Debian: dbus-daemon)"


class FakeLogind:
    """`env` leads a program to it. One graphical session, whose desktop can call itself idle."""

    def __init__(self, folder: Path, delay_s: float = 5.0) -> None:
        self.delay_s, self.idle, self.idle_since_us = delay_s, False, 0
        # Where a lock is held: our end of it, which is readable once it is let go.
        self.locks: list[int] = []
        address = f"unix:path={folder / 'bus'}"
        command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address", f"--address={address}"]
        self._bus = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._bus.stdout
        self._bus.stdout.readline()
        self.env = {"DBUS_SYSTEM_BUS_ADDRESS": address}
        self._connection = open_dbus_connection(address, enable_fds=True)
        self._connection.send_and_get_reply(DBus().RequestName(NAME))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._bus.terminate()
        self._bus.wait()
        self._thread.join(5)
        for lock in self.locks:
            os.close(lock)

    def prepare(self, kind: str, begins: bool) -> None:
        """`kind` is Sleep or Shutdown."""
        self._connection.send(new_signal(MANAGER, f"PrepareFor{kind}", "b", (begins,)))

    def desktop(self, idle: bool, since_us: int) -> None:
        self.idle, self.idle_since_us = idle, since_us
        changed = (f"{NAME}.Session", self._session(), [])
        properties = DBusAddress(DESKTOP, NAME, "org.freedesktop.DBus.Properties")
        self._connection.send(new_signal(properties, "PropertiesChanged", "sa{sv}as", changed))

    @property
    def held(self) -> bool:
        """Whether anybody holds a lock."""
        readable, _, _ = select.select(self.locks, [], [], 0)
        return len(readable) < len(self.locks)

    def _session(self) -> dict[str, Any]:
        return {
            "Type": ("s", "wayland"), "Class": ("s", "user"), "IdleHint": ("b", self.idle),
            "IdleSinceHint": ("t", self.idle_since_us),
        }  # fmt: skip

    def _serve(self) -> None:
        while True:
            try:
                message = self._connection.receive()
            except (OSError, EOFError):
                return
            if message.header.message_type == MessageType.method_call:
                self._connection.send(self._answer(message))

    def _answer(self, message: Any) -> Any:
        match message.header.fields[HeaderFields.member], message.body:
            case "Inhibit", ("shutdown:sleep", "potluck", _, "delay"):
                ours, theirs = os.pipe()
                self.locks.append(ours)
                reply = new_method_return(message, "h", (theirs,))
                threading.Timer(1.0, os.close, (theirs,)).start()  # it is sent before that
                return reply
            case "Get", (_, "InhibitDelayMaxUSec"):
                return new_method_return(message, "v", (("t", round(self.delay_s * 1e6)),))
            case "ListSessions", _:
                return new_method_return(message, "a(susso)", ([("1", 1000, "ann", "seat0", DESKTOP)],))
            case "GetAll", _:
                return new_method_return(message, "a{sv}", (self._session(),))
        return new_error(message, "org.freedesktop.DBus.Error.UnknownMethod")
