"""The policy on a node: what it sees of the machine, and what it has the provider do."""

import os
import pty
import time
from dataclasses import replace

import pytest
import trio
from tests import fake_logind
from tests.meshnode.clocks import TrioClock
from tests.meshnode.devices.test_login import logind, until

from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire import policy as messages
from potluck.wire.offer import HELD, OFF, USED
from potluck_node.config import load
from potluck_node.core import provider_events as pev
from potluck_node.core.policy_rules import Facts, GpuFacts, Policy
from potluck_node.devices.owner import Owner
from potluck_node.policy import QUICK_S, SLOW_S, PolicyDesk, assumed

__all__ = ["logind"]

IDLE = Policy(preset="idle", grace_s=30.0)


class Provider:
    """Remembers what it was told."""

    def __init__(self):
        self.core, self.told, self.graces = self, [], []
        self.done = trio.Event()
        self.paused, self.gpus = "", None

    def submit(self, event):
        if isinstance(event, pev.GraceBegan | pev.GraceSpared):
            self.graces.append(event)
            return
        self.told.append((trio.current_time(), event))
        if not isinstance(event, pev.GpusBlocked):
            self.paused = event.reason if isinstance(event, pev.Paused) else ""

    async def settled(self):
        await self.done.wait()

    def events(self):
        told, self.told = [event for _, event in self.told], []
        return told


def blocked(states, end=frozenset()):
    return pev.GpusBlocked(states, end, 30_000_000)


class Watch:
    """A `GpuWatch` that is looked at by hand."""

    looks = 0

    async def look(self):
        self.looks += 1


class Machine:
    """An `Owner` of which the test says what it sees."""

    def __init__(self):
        self.known = Facts(others_cpu_milli=0, memory_free_mib=9000, disk_free_gib=90.0)
        self.idle = 1e6

    def open_inputs(self): ...
    def close(self): ...
    def idle_s(self):
        return self.idle

    def facts(self, processes, cpu):
        return self.known

    def metered(self):
        return False


@pytest.fixture
def no_threads(monkeypatch):
    """Virtual time does not wait for them."""

    async def inline(function, *arguments):
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.fixture
async def desk(nursery, autojump_clock, no_threads, tmp_path):
    machine, provider = Machine(), Provider()
    made = PolicyDesk(IDLE, provider, machine, TrioClock(), tmp_path / "config.toml")
    await nursery.start(made.serve)
    assert provider.events() == []
    return made, machine, provider


async def test_who_comes_back_has_the_machine_at_once_and_what_runs_has_its_grace(autojump_clock, desk):
    _, machine, provider = desk
    machine.idle = 0.0
    before = trio.current_time()
    await trio.sleep(0.25)
    ((at, event),) = provider.told
    assert at - before <= 0.25
    assert event == pev.Paused("the owner returned", own=False)
    assert provider.graces == [pev.GraceBegan("the owner returned", 30_000_000, own=False)]
    provider.events()
    await trio.sleep(29)
    assert provider.events() == []
    await trio.sleep(2)
    assert provider.events() == [pev.Paused("the owner returned", now=True, own=False)]
    machine.idle = 181.0
    await trio.sleep(1)
    assert provider.events() == [pev.Resumed()]


async def test_what_another_has_stopped_is_not_started(autojump_clock, desk):
    made, machine, provider = desk
    machine.idle = 0.0
    await trio.sleep(1)
    provider.submit(pev.Paused("its journal is behind"))
    provider.events()
    machine.idle = 1e6
    await trio.sleep(1)
    assert provider.events() == []
    assert [reason.code for reason in made.reasons] == ["node-trouble"]


async def test_a_pause_ends_by_itself(autojump_clock, desk):
    made, _, provider = desk
    made.pause("lunch", False, 60)
    await trio.sleep(55)
    assert provider.events() == [pev.Paused("lunch")]
    await trio.sleep(10)
    assert provider.events() == [pev.Resumed()]


async def test_before_the_machine_sleeps_what_runs_has_what_it_waits_for_and_its_receipts(autojump_clock, desk):
    made, _, provider = desk
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.going, "sleep", 5.0)
        await trio.sleep(2.9)
        assert provider.graces == [pev.GraceBegan("the machine is about to sleep", 3_000_000)]
        assert [event.now for event in provider.events()] == [False]
        await trio.sleep(0.5)
        assert provider.events() == [pev.Paused("the machine is about to sleep", now=True)]
        provider.done.set()
    assert trio.current_time() - before < 3.5
    made.back()
    assert provider.events() == [pev.Resumed()]
    # What does not come to its end keeps nobody awake.
    provider.done = trio.Event()
    before = trio.current_time()
    await made.going("shutdown", 5.0)
    assert trio.current_time() - before == pytest.approx(4.7)
    assert made.reasons[0].code == "shutting-down"


@pytest.mark.skipif(bool(fake_logind.missing()), reason=fake_logind.missing())
@pytest.mark.parametrize(("kind", "code"), [("Sleep", "suspending"), ("Shutdown", "shutting-down")])
async def test_what_logind_says_reaches_what_runs_and_the_machine_waits_for_it(
    nursery, no_threads, tmp_path, logind, kind, code
):
    machine, provider = Machine(), Provider()
    desk = PolicyDesk(IDLE, provider, machine, TrioClock(), tmp_path / "config.toml")
    desk.follow_logind()
    await nursery.start(desk.serve)
    await until(lambda: logind.held)
    logind.prepare(kind, True)
    await until(lambda: provider.graces)
    assert provider.graces[0].grace_us == 3_000_000
    assert provider.graces[0].own
    assert [reason.code for reason in desk.reasons] == [code]
    assert logind.held
    provider.done.set()
    await until(lambda: not logind.held)
    # It came to its end within its grace: nothing was to be ended.
    assert [event.now for event in provider.events()] == [False]
    logind.prepare(kind, False)
    await until(lambda: logind.held)
    assert provider.events() == [pev.Resumed()]
    nursery.cancel_scope.cancel()


async def test_who_comes_and_goes_while_it_drains_ends_nothing(autojump_clock, desk):
    made, machine, provider = desk
    await made.answer(messages.Drain(1))
    machine.idle = 0.0
    await trio.sleep(10)
    machine.idle = 1e6
    await trio.sleep(40)
    assert provider.graces == [pev.GraceBegan("it finishes what it has, and takes nothing new", 30_000_000, own=False),
                               pev.GraceSpared()]  # fmt: skip
    assert [event.now for event in provider.events()] == [False]


async def test_draining_never_ends_what_runs_and_panic_does_at_once(autojump_clock, desk):
    made, _, provider = desk
    await made.answer(messages.Drain(1))
    await trio.sleep(60)
    assert provider.events() == [pev.Paused("it finishes what it has, and takes nothing new")]
    await made.answer(messages.Panic(1))
    assert [(event.now, event.own) for event in provider.events()] == [(False, True), (True, True)]
    made.resume()
    assert pev.Resumed() in provider.events()


async def test_slow_facts_are_seen_too(autojump_clock, desk):
    _, machine, provider = desk
    machine.known = replace(machine.known, on_battery=True, battery=0.9)
    await trio.sleep(2 * SLOW_S)
    assert [event.reason for event in provider.events()] == ["it runs on battery"]


async def test_figures_that_change_are_told_once(autojump_clock, desk):
    _, machine, provider = desk
    for number in range(4):
        machine.known = replace(machine.known, memory_free_mib=100 + number)
        await trio.sleep(SLOW_S + 1)
    assert [event.now for event in provider.events()] == [False]


async def test_who_comes_back_while_it_drains_ends_what_runs_after_its_grace(autojump_clock, desk):
    made, machine, provider = desk
    await made.answer(messages.Drain(1))
    await trio.sleep(40)
    machine.idle = 0.0
    await trio.sleep(25)
    assert [event.now for event in provider.events()] == [False]
    assert [event.grace_us for event in provider.graces] == [30_000_000]
    await trio.sleep(10)
    assert [event.now for event in provider.events()] == [True]


async def test_what_if(autojump_clock, desk):
    made, _, provider = desk
    now = await made.answer(messages.AskPolicy(1))
    assert (now.works, now.reasons) == (True, ())
    then = await made.answer(messages.AskPolicy(1, {"programs": '["wineserver"]', "idle_s": "5"}))
    assert (then.works, [reason.code for reason in then.reasons]) == (False, ["user-active", "game"])
    assert then.facts["idle_s"] == "5.0"
    assert (await made.answer(messages.AskPolicy(1))).works
    assert provider.events() == []


async def test_another_policy_is_tried_then_kept_at_once(autojump_clock, desk, tmp_path):
    made, machine, provider = desk
    machine.idle = 400.0
    tried = await made.answer(messages.AskPolicy(1, text="idle_s = 500"))
    assert (tried.works, [reason.code for reason in tried.reasons]) == (False, ["user-active"])
    assert (tried.text, tried.policy["idle_s"]) == ("idle_s = 500", "500.0")
    assert provider.events() == []
    assert await made.answer(messages.SetPolicy(1, "idle_s = 500  # long")) == control.Done(1)
    assert [event.reason for event in provider.events()] == ["the owner returned"]
    assert (await made.answer(messages.AskPolicy(1))).text == "idle_s = 500  # long\n"
    await made.answer(messages.SetPolicy(1, "idle_s = 0", keep=True))
    assert provider.events() == [pev.Resumed()]
    assert load(tmp_path, {}).policy == Policy(idle_s=0.0)
    with pytest.raises(InvalidError, match="idle_s"):
        await made.answer(messages.SetPolicy(1, 'idle_s = "soon"'))
    assert (await made.answer(messages.AskPolicy(1))).works


async def test_a_policy_that_asks_for_input_is_quick_from_its_first_moment(
    autojump_clock, nursery, no_threads, tmp_path
):
    machine, provider = Machine(), Provider()
    made = PolicyDesk(Policy(), provider, machine, TrioClock(), tmp_path / "config.toml")
    await nursery.start(made.serve)
    await made.answer(messages.SetPolicy(1, "idle_s = 60"))
    assert provider.events() == []
    machine.idle, before = 0.0, trio.current_time()
    await trio.sleep(0.25)
    assert [at - before <= 0.25 for at, _ in provider.told] == [True]


async def test_a_gpu_is_held_back_then_what_runs_there_ends_and_it_comes_back(autojump_clock, desk):
    made, _, provider = desk
    hot = GpuFacts("GPU-1", "0", False, 95.0)
    made.gpus_seen((hot, GpuFacts("GPU-2", "1", True)))
    assert (await made.answer(messages.AskPolicy(1))).works
    states = (("GPU-1", HELD), ("GPU-2", USED))
    assert provider.events() == [blocked(states)]
    for _ in range(5):
        await trio.sleep(5)
        made.gpus_seen((hot, GpuFacts("GPU-2", "1", False)))
    assert provider.events() == [blocked((("GPU-1", HELD),))]
    await trio.sleep(6)
    assert provider.events() == [blocked((("GPU-1", HELD),), frozenset({"GPU-1"}))]
    made.gpus_seen((replace(hot, temp_c=50.0),))
    await trio.sleep(60 + 2 * SLOW_S)
    assert provider.events() == [blocked(())]
    assert (await made.answer(messages.AskPolicy(1))).facts["gpu 0"] == "uuid GPU-1, used False, temp_c 50.0"


async def test_a_gpu_is_taken_out_and_half_of_another_is_lent(autojump_clock, nursery, no_threads, tmp_path):
    provider = Provider()
    provider.gpus = Watch()
    made = PolicyDesk(Policy(gpu_off=(0,)), provider, Machine(), TrioClock(), tmp_path / "config.toml")
    # Before it serves: no GPU may be given away that is held back.
    provider.gpus.on_facts((GpuFacts("GPU-1", "0"), GpuFacts("GPU-2", "1")))
    assert provider.events() == [blocked((("GPU-1", OFF),))]
    assert (provider.gpus.lent_memory, provider.gpus.looks) == (1.0, 0)
    await nursery.start(made.serve)
    await made.answer(messages.SetPolicy(1, "gpu_share_vram = 0.5"))
    assert provider.events() == [blocked(())]
    assert (provider.gpus.lent_memory, provider.gpus.looks) == (0.5, 1)


@pytest.mark.parametrize(("fact", "value"), [("weather", "1"), ("idle_s", "soon"), ("gpus", "[]"), ("programs", "1")])
def test_facts_that_cannot_be(fact, value):
    with pytest.raises(InvalidError, match="fact"):
        assumed(Facts(), {fact: value})


def test_a_quarter_of_a_second_is_kept():
    assert QUICK_S < 0.25


# What is seen of the machine


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_laptop_is_seen(tmp_path):
    write(tmp_path, "sys/class/power_supply/AC/type", "Mains\n")
    write(tmp_path, "sys/class/power_supply/AC/online", "0\n")
    write(tmp_path, "sys/class/power_supply/BAT0/type", "Battery\n")
    write(tmp_path, "sys/class/power_supply/BAT0/capacity", "37\n")
    write(tmp_path, "sys/class/power_supply/mouse/type", "Battery\n")
    write(tmp_path, "sys/class/power_supply/mouse/scope", "Device\n")
    write(tmp_path, "sys/class/power_supply/mouse/capacity", "99\n")
    write(tmp_path, "proc/acpi/button/lid/LID0/state", "state:      closed\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "71000\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/type", "iwlwifi\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/temp", "99000\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:    2048000 kB\n")
    for pid, name, line in ((1, "init", "init"), (7, "sshd", "sshd: ann@pts/0"), (8, "sshd", "sshd: ann [priv]")):
        write(tmp_path, f"proc/{pid}/comm", f"{name}\n")
        write(tmp_path, f"proc/{pid}/cmdline", line)
    facts = Owner(tmp_path, tmp_path).facts(processes=True)
    assert (facts.on_battery, facts.battery, facts.lid_closed) == (True, 0.37, True)
    assert (facts.cpu_temp_c, facts.memory_free_mib) == (71.0, 2000)
    assert (facts.programs, facts.ssh_sessions) == (("init", "sshd"), 1)


def test_a_machine_that_tells_nothing_is_not_guessed_about(tmp_path):
    (tmp_path / "proc").mkdir()
    owner = Owner(tmp_path, tmp_path)
    owner.open_inputs()
    facts = owner.facts(processes=False)
    unknown = (facts.on_battery, facts.battery, facts.lid_closed, facts.cpu_temp_c, facts.others_cpu_milli)
    assert unknown == (None,) * 5
    assert owner._ttys_s() is None


def test_what_others_take_of_the_processor(tmp_path):
    own = os.getpid()
    write(tmp_path, "proc/stat", "cpu  100 0 0 900 0 0 0 0 0 0\n")
    write(tmp_path, f"proc/{own}/stat", f"{own} (node) S 1 " + "0 " * 9 + "10 0 0 0 0 0\n")
    owner = Owner(tmp_path, tmp_path)
    assert owner.facts(False).others_cpu_milli is None
    # 100 ticks more, of which 60 were busy: 20 of them ours, in a child of ours.
    write(tmp_path, "proc/stat", "cpu  160 0 0 940 0 0 0 0 0 0\n")
    write(tmp_path, "proc/9999/stat", f"9999 (work er) S {own} " + "0 " * 9 + "20 0 0 0 0 0\n")
    assert owner.facts(False).others_cpu_milli == 400


def test_typing_into_a_terminal_is_seen():
    main, terminal = pty.openpty()
    try:
        path = os.ttyname(terminal)
        os.utime(path, (time.time() - 5000, time.time() - 5000))
        os.write(main, b"x\n")
        assert os.read(terminal, 16)
        assert Owner(None)._ttys_s() < 20
    finally:
        os.close(main)
        os.close(terminal)


def test_a_keyboard_is_listened_to_but_not_read(tmp_path):
    (tmp_path / "dev/input").mkdir(parents=True)
    os.mkfifo(tmp_path / "dev/input/event0")
    keep = os.open(tmp_path / "dev/input/event0", os.O_RDWR)
    owner = Owner(tmp_path, tmp_path)
    owner.open_inputs()
    assert owner.idle_s() >= 0
    owner._seen_input = time.monotonic() - 500
    assert owner.idle_s() >= 500
    os.write(keep, bytes(24))
    assert owner.idle_s() < 1
    owner.close()
    os.close(keep)
