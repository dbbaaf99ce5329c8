"""systemd-logind: whether the machine is about to sleep or stop, and whether its desktop calls itself idle.

Reference: org.freedesktop.login1(5). Without D-Bus or logind nothing is known, and nothing is delayed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio
from jeepney import DBus, DBusAddress, DBusErrorResponse, HeaderFields, MatchRule, Properties, new_method_call
from jeepney import Message as BusMessage
from jeepney.io.trio import DBusConnection, open_dbus_connection
from jeepney.low_level import MessageType

log = logging.getLogger("potluck.login")

NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
MANAGER = DBusAddress(PATH, NAME, f"{NAME}.Manager")
# A desktop that hangs must not hang the node, seconds; when to look for logind again.
ANSWER_TIMEOUT_S, AGAIN_S = 5.0, 60.0
# Signals that wait: a login changes a handful of properties.
SIGNALS_MAX = 64
# Sessions that are looked at; a machine with more tells enough by these.
SESSIONS_MAX = 32
GRAPHICAL = ("x11", "wayland", "mir")
LOST = (OSError, EOFError, DBusErrorResponse, trio.BrokenResourceError, trio.ClosedResourceError,
        trio.TooSlowError, KeyError, ValueError)  # fmt: skip


@dataclass
class Session:
    """A graphical one. Some desktops never call themselves idle: what such a one says counts for nothing, until it
    has `told` so once."""

    idle: bool = False
    since_us: int = 0
    told: bool = False


class Login:
    """`going` is awaited with "sleep" or "shutdown" and the seconds that the machine waits for it; `back` is called
    when it woke up, or goes on after all; `stirred` when a desktop is idle no more."""

    def __init__(
        self, going: Callable[[str, float], Awaitable[None]], back: Callable[[], None], stirred: Callable[[], None]
    ) -> None:
        self._going, self._back, self._stirred = going, back, stirred
        self._sessions: dict[str, Session] = {}
        self._lock: Any = None
        self._delay_s = 0.0
        self._why = ""

    def idle_s(self) -> float | None:
        """Since when every desktop that tells calls itself idle; 0 while one does not, None if none tells."""
        told = [each for each in self._sessions.values() if each.told]
        if not told:
            return None
        since_us = max(each.since_us if each.idle else 1 << 62 for each in told)
        return max(0.0, time.time() - since_us / 1e6)

    async def serve(self) -> None:
        """Follow logind until cancelled."""
        while True:
            try:
                await self._follow()
            except* LOST as group:
                why = str(group.exceptions[0])
                if why != self._why:
                    self._why = why
                    log.info("systemd-logind tells nothing here: %s", why)
            finally:
                self._release()
                self._sessions.clear()
            await trio.sleep(AGAIN_S)

    async def _follow(self) -> None:
        async with await open_dbus_connection("SYSTEM", enable_fds=True) as connection, trio.open_nursery() as nursery:
            bus = _Bus(connection)
            (owner,) = await bus.ask(DBus().GetNameOwner(NAME))
            for rule in (MatchRule(type="signal", sender=NAME), _owner_changes()):
                await bus.ask(DBus().AddMatch(rule))
            ((_, delay_us),) = await bus.ask(Properties(MANAGER).get("InhibitDelayMaxUSec"))
            self._delay_s = delay_us / 1e6
            await self._take_lock(bus)
            await self._look(bus)
            while True:
                signal = await bus.signal()
                fields = signal.header.fields
                if fields.get(HeaderFields.member) == "NameOwnerChanged":
                    raise OSError("it has gone")
                # Anybody may send us a signal.
                if fields.get(HeaderFields.sender) == owner:
                    await self._took(bus, nursery, signal)

    async def _took(self, bus: _Bus, nursery: trio.Nursery, signal: BusMessage) -> None:
        fields = signal.header.fields
        match fields.get(HeaderFields.member), signal.body:
            case ("PrepareForSleep" | "PrepareForShutdown") as kind, (bool(begins),):
                word = "sleep" if kind == "PrepareForSleep" else "shutdown"
                if begins:
                    nursery.start_soon(self._go, word)
                else:
                    self._back()
                    await self._take_lock(bus)
            case (("SessionNew" | "SessionRemoved"), _):
                await self._look(bus)
            case "PropertiesChanged", (str(), dict(changed), _):
                self._changed(str(fields.get(HeaderFields.path)), {name: value for name, (_, value) in changed.items()})

    async def _go(self, kind: str) -> None:
        log.info("the machine is about to %s, in at most %g s", kind, self._delay_s)
        try:
            await self._going(kind, self._delay_s)
        finally:
            self._release()

    # The lock that makes the machine wait

    async def _take_lock(self, bus: _Bus) -> None:
        self._release()
        why = "what runs for others saves, and its receipts are written"
        message = new_method_call(MANAGER, "Inhibit", "ssss", ("shutdown:sleep", "potluck", why, "delay"))
        try:
            (self._lock,) = await bus.ask(message)
        except DBusErrorResponse as error:
            log.info("the machine does not wait for us when it sleeps or stops: %s", error)

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    # Desktops

    async def _look(self, bus: _Bus) -> None:
        (rows,) = await bus.ask(new_method_call(MANAGER, "ListSessions"))
        before, self._sessions = self._sessions, {}
        for *_, path in rows[:SESSIONS_MAX]:
            try:
                (found,) = await bus.ask(Properties(DBusAddress(path, NAME, f"{NAME}.Session")).get_all())
            except DBusErrorResponse:
                continue  # it has just ended
            said = {name: value for name, (_, value) in found.items()}
            if said.get("Type") in GRAPHICAL and said.get("Class") == "user":
                self._sessions[path] = before.get(path, Session())
                self._changed(path, said)

    def _changed(self, path: str, said: dict[str, Any]) -> None:
        session = self._sessions.get(path)
        if session is None or "IdleHint" not in said:
            return
        session.idle, session.told = bool(said["IdleHint"]), session.told or bool(said["IdleHint"])
        session.since_us = int(said.get("IdleSinceHint", 0)) or time.time_ns() // 1000
        if session.told and not session.idle:
            self._stirred()


def _owner_changes() -> MatchRule:
    rule = MatchRule(type="signal", sender="org.freedesktop.DBus", member="NameOwnerChanged")
    rule.add_arg_condition(0, NAME)
    return rule


class _Bus:
    """Asks one question at a time, and keeps the signals that come meanwhile."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        self._signals: deque[BusMessage] = deque(maxlen=SIGNALS_MAX)

    async def ask(self, message: BusMessage) -> Any:
        with trio.fail_after(ANSWER_TIMEOUT_S):
            serial = next(self._connection.outgoing_serial)
            await self._connection.send(message, serial=serial)
            while True:
                found = await self._connection.receive()
                if found.header.fields.get(HeaderFields.reply_serial) == serial:
                    if found.header.message_type == MessageType.error:
                        raise DBusErrorResponse(found)
                    return found.body
                self._signals.append(found)

    async def signal(self) -> BusMessage:
        return self._signals.popleft() if self._signals else await self._connection.receive()
