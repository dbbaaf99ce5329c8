"""The owner's policy: named reasons, each with what would change it; no flapping; no wrong decision in a day."""

import random
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_node.core.policy import PolicyCore, S, explain
from potluck_node.core.policy_rules import (
    BETWEEN,
    CLEAR,
    GPU_RULES,
    OVER,
    RULES,
    WEEK_MINUTES,
    Facts,
    GpuFacts,
    Policy,
    above,
    below,
    spans,
)  # fmt: skip

IDLE = Policy(preset="idle")
# A machine at which nobody sits, with everything known.
QUIET = Facts(
    week_minute=600, idle_s=1e6, ssh_sessions=0, fullscreen="", on_battery=False, battery=1.0, metered=False,
    lid_closed=False, others_cpu_milli=20, memory_free_mib=9000, disk_free_gib=90.0, cpu_temp_c=50.0,
    gpus=(GpuFacts("GPU-1", "0", False, 40.0, 30.0, 24_000, 100),),
)  # fmt: skip
GPU = QUIET.gpus[0]

# Each reason, and the facts (or settings) that bring it about.
CAUSES = {
    "panic": replace(QUIET, panic=True),
    "shutting-down": replace(QUIET, shutting_down=True),
    "suspending": replace(QUIET, suspending=True),
    "node-trouble": replace(QUIET, node_trouble="its journal is behind"),
    "paused": replace(QUIET, paused="lunch"),
    "draining": replace(QUIET, draining=True),
    "user-active": replace(QUIET, idle_s=3.0),
    "presence-unknown": replace(QUIET, idle_s=None),
    "ssh-session": replace(QUIET, ssh_sessions=2),
    "fullscreen": replace(QUIET, fullscreen="mpv"),
    "game": replace(QUIET, programs=("bash", "wineserver")),
    "exclusive-program": replace(QUIET, programs=("Blender",)),
    "outside-window": replace(QUIET, week_minute=12 * 60),
    "on-battery": replace(QUIET, on_battery=True),
    "battery-low": replace(QUIET, on_battery=True, battery=0.2),
    "lid-closed": replace(QUIET, lid_closed=True),
    "metered": replace(QUIET, metered=True),
    "cpu-busy": replace(QUIET, others_cpu_milli=900),
    "memory-low": replace(QUIET, memory_free_mib=100),
    "disk-low": replace(QUIET, disk_free_gib=1.0),
    "store-full": replace(QUIET, store_full=True),
    "cpu-hot": replace(QUIET, cpu_temp_c=99.0),
    "gpu-off": QUIET,
    "gpu-neighbour": replace(QUIET, gpus=(replace(GPU, neighbour=True),)),
    "gpu-used": replace(QUIET, gpus=(replace(GPU, used=True),)),
    "gpu-memory-used": replace(QUIET, gpus=(replace(GPU, others_mib=20_000),)),
    "gpu-hot": replace(QUIET, gpus=(replace(GPU, temp_c=95.0),)),
    "gpu-busy": replace(QUIET, gpus=(replace(GPU, others_milli=310),)),
    "gpu-power": replace(QUIET, gpus=(replace(GPU, watts=400.0),)),
}
# Settings with which each of these is a reason, and nothing is in quiet.
STRICT = Policy(
    preset="idle", exclusive=("blender",), windows={"mon": ("09:00-11:00",)}, lid_closed=False, gpu_share_vram=0.5,
    gpu_watts=350.0,
)  # fmt: skip


# Policies under which a cause is one.
SPECIAL = {"gpu-off": {"gpu_off": (0,)}, "gpu-used": {"gpu_share_vram": 1.0}}


@pytest.mark.parametrize("code", [*RULES, *GPU_RULES])
def test_every_reason_has_a_cause_words_and_something_to_do_about_it(code):
    policy = msgspec.structs.replace(STRICT, **SPECIAL.get(code, {}))
    found = {reason.code: reason for reason in explain(policy, CAUSES[code])}
    assert code in found
    assert found[code].text
    assert found[code].fix.endswith((".", "resume", "doctor"))
    assert found[code].gpu == ("GPU-1" if code in GPU_RULES else "")
    assert code not in {reason.code for reason in explain(STRICT, QUIET)}


def test_there_are_more_than_twenty():
    assert len(RULES) + len(GPU_RULES) >= 20
    assert explain(STRICT, QUIET) == ()


def test_a_server_works_whatever_people_do():
    busy = replace(QUIET, idle_s=None, ssh_sessions=9, others_cpu_milli=999, programs=("wineserver",))
    assert explain(Policy(), busy) == ()


def test_a_gpu_alone_is_not_the_machine():
    core = PolicyCore(IDLE)
    core.see(replace(QUIET, gpus=(replace(GPU, used=True), replace(GPU, uuid="GPU-2", index="1"))), 0)
    assert core.works
    assert core.blocked(29 * S) == {"GPU-1": ("gpu-used", False)}
    assert core.blocked(30 * S) == {"GPU-1": ("gpu-used", True)}


def test_the_grace_of_a_gpu_is_that_of_its_oldest_reason():
    core = PolicyCore(IDLE)
    core.see(replace(QUIET, gpus=(replace(GPU, temp_c=95.0),)), 0)
    core.see_gpus((replace(GPU, temp_c=95.0, used=True),), 20 * S)
    assert core.blocked(30 * S) == {"GPU-1": ("gpu-used", True)}


def test_what_is_seen_of_gpus_alone_changes_nothing_else():
    core = PolicyCore(IDLE)
    core.see(replace(QUIET, on_battery=True), 0)
    core.see_gpus((replace(GPU, used=True),), S)
    assert [reason.code for reason in core.reasons] == ["on-battery", "gpu-used"]
    core.see_gpus((), S)
    assert [reason.code for reason in core.reasons] == ["on-battery"]


def test_who_lends_half_of_a_gpu_may_use_the_other_half():
    core = PolicyCore(Policy(gpu_share_vram=0.5))
    core.see_gpus((replace(GPU, used=True, others_mib=12_000),), 0)
    assert core.blocked(0) == {}
    core.see_gpus((replace(GPU, used=True, others_mib=12_001),), 0)
    assert core.blocked(0) == {"GPU-1": ("gpu-memory-used", False)}


def test_what_swings_around_a_limit_stops_work_once():
    core, stops = PolicyCore(IDLE), 0
    for second in range(600):
        before = core.works
        core.see(replace(QUIET, others_cpu_milli=510 if second % 2 else 490), second * S)
        stops += before and not core.works
    assert stops == 1
    # It has to be clearly below for a minute.
    core.see(replace(QUIET, others_cpu_milli=100), 600 * S)
    assert not core.works
    assert core.wake_us == 660 * S
    core.see(replace(QUIET, others_cpu_milli=100), core.wake_us)
    assert core.works


def test_words_stay_those_of_the_cause_while_it_lingers():
    core = PolicyCore(IDLE)
    core.see(replace(QUIET, cpu_temp_c=99.0), 0)
    (reason,) = core.see(replace(QUIET, cpu_temp_c=None), 1 * S)
    assert reason.text == "its processor has 99 °C"


def test_another_policy_holds_at_once():
    core = PolicyCore(IDLE)
    core.see(replace(QUIET, others_cpu_milli=900), 0)
    assert not core.works
    core.set(Policy(), QUIET, 1)
    assert core.works


@pytest.mark.parametrize(
    ("windows", "found"),
    [
        ({"mon": ("09:00-17:30",)}, [(540, 1050)]),
        ({"tue": ("22:00-07:00",)}, [(1440 + 1320, 2880 + 420)]),
        ({"sun": ("22:00-07:00",)}, [(0, 420), (8640 + 1320, WEEK_MINUTES)]),
        ({"mon": ("00:00-24:00",)}, [(0, 1440)]),
    ],
)
def test_windows(windows, found):
    assert spans(windows) == found


@pytest.mark.parametrize("text", ["9-17", "09:00", "09:00-09:00", "25:00-26:00", "09:61-10:00", "-", "aa:bb-cc:dd"])
def test_windows_that_are_none(text):
    with pytest.raises(ValueError, match="is no"):
        spans({"mon": (text,)})
    with pytest.raises(ValueError, match="is no day"):
        spans({"monday": ("09:00-10:00",)})


@given(st.floats(0, 2000), st.floats(1, 1000))
def test_levels_leave_room_around_a_limit(value, limit):
    assert above(value, limit) == (OVER if value > limit else BETWEEN if value > 0.9 * limit else above(value, limit))
    assert below(value, limit) != CLEAR or value >= limit
    assert above(None, limit) == below(None, limit) == above(value, 0) == CLEAR


# A day, against an oracle that keeps no state: it looks back over all that was ever seen


def fact_changes(dice, count):
    """(when, facts) with one thing changed each time, over 24 hours."""
    choices = {
        "idle_s": (None, 0.0, 100.0, 1e6), "ssh_sessions": (0, 0, 1), "fullscreen": ("", "", "mpv"),
        "programs": ((), (), ("blender",), ("wineserver",)), "on_battery": (False, False, True),
        "battery": (0.1, 0.52, 0.9), "metered": (False, False, True), "others_cpu_milli": (10, 460, 480, 700, None),
        "memory_free_mib": (500, 1100, 9000), "disk_free_gib": (4.0, 5.2, 90.0), "cpu_temp_c": (None, 60.0, 90.0, 99.0),
        "paused": ("", "", "", "lunch"), "lid_closed": (False, True), "draining": (False, False, False, True),
    }  # fmt: skip
    facts, now_us, step_us = QUIET, 0, 24 * 3600 * S // count
    for _ in range(count):
        now_us += dice.randrange(1, 2 * step_us)
        name = dice.choice([*choices, "gpus"])
        if name == "gpus":
            gpu = replace(facts.gpus[0], used=dice.random() < 0.2, temp_c=dice.choice((40.0, 80.0, 95.0)))
            gpu = replace(gpu, others_mib=dice.choice((0, 11_500, 20_000)))
            facts = replace(facts, gpus=(gpu,))
        else:
            facts = replace(facts, **{name: dice.choice(choices[name])})
        facts = replace(facts, week_minute=now_us // (60 * S) % WEEK_MINUTES)
        yield now_us, facts


def oracle(policy, seen, at_us):
    """Which reasons hold: going back in time, those that were over before they were clear for long enough."""
    found = set()
    for code, rule in [*RULES.items(), *GPU_RULES.items()]:
        clear_until_us = at_us
        for since_us, facts in reversed(seen):
            level = rule.check(policy, facts if code in RULES else facts.gpus[0])
            if level == OVER:
                found.add(code)
                break
            if level == BETWEEN:
                clear_until_us = since_us
            elif clear_until_us - since_us >= rule.dwell_s * S:
                break
    return found


def wrong_decisions(count, seed, every=1):
    dice = random.Random(seed)
    policy = STRICT.complete()
    policy = msgspec.structs.replace(policy, windows={"mon": ("00:00-08:00", "20:00-23:00")})
    core, seen, wrong, compared = PolicyCore(policy), [], 0, 0
    for number, (now_us, facts) in enumerate(fact_changes(dice, count)):
        while core.wake_us is not None and core.wake_us <= now_us and seen:
            core.see(replace(seen[-1][1], week_minute=core.wake_us // (60 * S) % WEEK_MINUTES), core.wake_us)
        core.see(facts, now_us)
        seen.append((now_us, facts))
        if number % every == 0:
            compared += 1
            wrong += {reason.code for reason in core.reasons} != oracle(policy, seen, now_us)
    return wrong, compared


@pytest.mark.parametrize("seed", range(3))
def test_a_day_without_one_wrong_decision(seed):
    assert wrong_decisions(5_000, seed) == (0, 5_000)


def test_the_oracle_notices_a_wrong_rule(monkeypatch):
    rule = RULES["cpu-busy"]
    core_only = PolicyCore._step

    def hasty(self, key, each, facts, now_us):
        return core_only(self, key, replace(each, dwell_s=0.0) if each is rule else each, facts, now_us)

    monkeypatch.setattr(PolicyCore, "_step", hasty)
    assert wrong_decisions(2_000, 1)[0] > 0
