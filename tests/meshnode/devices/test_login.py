"""systemd-logind, played on a message bus of its own."""

import time

import pytest
import trio
from tests import fake_logind

from potluck_node.devices.login import Login

pytestmark = pytest.mark.skipif(bool(fake_logind.missing()), reason=fake_logind.missing())


@pytest.fixture
def logind(tmp_path, monkeypatch):
    made = fake_logind.FakeLogind(tmp_path)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


class Heard:
    def __init__(self):
        self.login = Login(self.going, lambda: self.events.append("back"), lambda: self.events.append("stirred"))
        self.events, self.goes_on = [], trio.Event()

    async def going(self, kind, delay_s):
        self.events.append((kind, delay_s))
        await self.goes_on.wait()


async def until(condition):
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


async def test_the_machine_waits_until_what_is_to_be_done_is_done(nursery, logind):
    heard = Heard()
    nursery.start_soon(heard.login.serve)
    await until(lambda: logind.held)
    logind.prepare("Sleep", True)
    await until(lambda: heard.events == [("sleep", 5.0)])
    assert logind.held
    heard.goes_on.set()
    await until(lambda: not logind.held)
    logind.prepare("Sleep", False)
    await until(lambda: heard.events[1:] == ["back"] and logind.held)
    logind.prepare("Shutdown", True)
    await until(lambda: heard.events[2:] == [("shutdown", 5.0)])
    nursery.cancel_scope.cancel()


async def test_a_desktop_that_calls_itself_idle_is_believed_from_then_on(nursery, logind):
    heard = Heard()
    nursery.start_soon(heard.login.serve)
    await until(lambda: logind.held and heard.login._sessions)
    assert heard.login.idle_s() is None
    logind.desktop(True, (time.time_ns() - 100 * 10**9) // 1000)
    await until(lambda: heard.login.idle_s() is not None)
    assert 99 < heard.login.idle_s() < 130
    assert heard.events == []
    logind.desktop(False, 0)
    await until(lambda: heard.events == ["stirred"])
    assert heard.login.idle_s() == 0
    nursery.cancel_scope.cancel()


async def test_what_others_say_is_no_word_of_logind(nursery, logind):
    from jeepney import DBusAddress, new_signal
    from jeepney.io.blocking import open_dbus_connection

    heard = Heard()
    nursery.start_soon(heard.login.serve)
    await until(lambda: logind.held)
    stranger = open_dbus_connection(logind.env["DBUS_SYSTEM_BUS_ADDRESS"])
    manager = DBusAddress(fake_logind.PATH, None, f"{fake_logind.NAME}.Manager")
    stranger.send(new_signal(manager, "PrepareForShutdown", "b", (True,)))
    stranger.close()
    logind.prepare("Sleep", True)
    await until(lambda: heard.events)
    assert heard.events == [("sleep", 5.0)]
    nursery.cancel_scope.cancel()


async def test_without_a_bus_nothing_is_known_and_nothing_fails(autojump_clock, nursery, tmp_path, monkeypatch):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'none'}")
    heard = Heard()
    nursery.start_soon(heard.login.serve)
    await trio.sleep(200)
    assert heard.login.idle_s() is None
    assert heard.events == []
    nursery.cancel_scope.cancel()
