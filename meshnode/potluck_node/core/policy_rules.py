"""What an owner can say about when the machine works for others, what is known of it, and the reasons not to. Pure.

What nobody knows stops nothing, but for the one thing that policies of machines with people rest on: whether somebody
is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import msgspec

# How a check came out: it stops work; changes nothing; or stops nothing, and ends what it stopped once that has lasted.
OVER, BETWEEN, CLEAR = 2, 1, 0
WEEK_MINUTES = 7 * 24 * 60
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# A limit is left when the value is this much below it, in thousandths.
LEAVE_MILLI = 900
# Programs that say that a game runs, whatever it is called: launchers' own helpers, and Feral's GameMode.
GAME_HELPERS = ("gamemoderun", "gamescope", "reaper", "wineserver", "wine64-preloader", "proton")


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[policy]` of config.toml. `preset` gives what is not said."""

    preset: Literal["always", "idle", "nights"] = "always"
    idle_s: float | None = None
    windows: dict[str, tuple[str, ...]] | None = None
    games: bool | None = None
    fullscreen: bool | None = None
    ssh: bool | None = None
    exclusive: tuple[str, ...] = ()
    battery: bool | None = None
    battery_min: float | None = None
    metered: bool | None = None
    lid_closed: bool = True
    others_cpu: float | None = None
    memory_free_mib: int | None = None
    disk_free_gib: float | None = None
    cpu_temp_c: float | None = None
    gpu_temp_c: float | None = None
    gpu_watts: float = 0.0
    gpu_others_load: float | None = None
    gpu_off: tuple[str | int, ...] = ()
    gpu_share_vram: float = 1.0
    grace_s: float = 30.0

    def complete(self) -> Policy:
        """With what the preset says where the owner says nothing."""
        preset = _PRESETS[self.preset]
        missing = {name: value for name, value in preset.items() if getattr(self, name) is None}
        return msgspec.structs.replace(self, **missing)


_NIGHTS = dict.fromkeys(DAYS, ("22:00-07:00",))
# A server, or a machine whose owner decides alone: only what they and the system say stops it.
_ALWAYS: dict[str, object] = {
    "idle_s": 0.0, "windows": {}, "games": False, "fullscreen": False, "ssh": False, "others_cpu": 0.0, "battery": True,
    "battery_min": 0.0, "metered": True, "memory_free_mib": 0, "disk_free_gib": 0.0, "cpu_temp_c": 0.0,
    "gpu_temp_c": 0.0, "gpu_others_load": 0.0,
}  # fmt: skip
# A machine at which somebody works or plays.
_IDLE: dict[str, object] = {
    "idle_s": 180.0, "windows": {}, "games": True, "fullscreen": True, "ssh": True, "others_cpu": 0.5, "battery": False,
    "battery_min": 0.5, "metered": False, "memory_free_mib": 1024, "disk_free_gib": 5.0, "cpu_temp_c": 95.0,
    "gpu_temp_c": 87.0, "gpu_others_load": 0.3,
}  # fmt: skip
_PRESETS: dict[str, dict[str, object]] = {"always": _ALWAYS, "idle": _IDLE, "nights": _IDLE | {"windows": _NIGHTS}}


@dataclass(frozen=True)
class GpuFacts:
    """Of one GPU; None where nobody knows. `others_mib` is what programs of the owner hold of its memory,
    `others_milli` the part of the time in which they use it, in thousandths; `neighbour` that another node of this
    machine has it."""

    uuid: str
    index: str = ""
    used: bool | None = None
    temp_c: float | None = None
    watts: float | None = None
    memory_mib: int | None = None
    others_mib: int | None = None
    others_milli: int | None = None
    neighbour: bool | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of the machine; None where nobody knows. `week_minute` is the local time since Monday 0:00;
    `others_cpu_milli` what programs of others take of all processors, in thousandths."""

    week_minute: int | None = None
    idle_s: float | None = None
    ssh_sessions: int | None = None
    fullscreen: str | None = None
    programs: tuple[str, ...] = ()
    on_battery: bool | None = None
    battery: float | None = None
    metered: bool | None = None
    lid_closed: bool | None = None
    others_cpu_milli: int | None = None
    memory_free_mib: int | None = None
    disk_free_gib: float | None = None
    cpu_temp_c: float | None = None
    gpus: tuple[GpuFacts, ...] = ()
    # Said by the owner or the system, each with its words.
    paused: str = ""
    paused_until_us: int = 0
    draining: bool = False
    panic: bool = False
    shutting_down: bool = False
    suspending: bool = False
    store_full: bool = False
    node_trouble: str = ""


@dataclass(frozen=True)
class Reason:
    """Why the machine (or one GPU) does not work now, and what would change that."""

    code: str
    text: str
    fix: str
    gpu: str = ""
    since_us: int = 0


FactsT = TypeVar("FactsT")


@dataclass(frozen=True)
class Rule(Generic[FactsT]):
    """Of the machine, or of one GPU. `dwell_s` is how long it has to be clear before work begins again."""

    check: Callable[[Policy, FactsT], int]
    text: Callable[[Policy, FactsT], str]
    fix: str
    dwell_s: float = 0.0


def above(value: float | None, limit: float | None) -> int:
    """A limit of nothing, or a value that nobody knows, stops nothing."""
    if value is None or not limit:
        return CLEAR
    return OVER if value > limit else BETWEEN if value * 1000 > limit * LEAVE_MILLI else CLEAR


def below(value: float | None, limit: float | None) -> int:
    """The same for what there has to be enough of."""
    if value is None or not limit:
        return CLEAR
    return OVER if value < limit else BETWEEN if value * LEAVE_MILLI < limit * 1000 else CLEAR


def flag(value: object) -> int:
    return OVER if value else CLEAR


def _present(policy: Policy, facts: Facts) -> int:
    if not policy.idle_s:
        return CLEAR
    return flag(facts.idle_s is not None and facts.idle_s < policy.idle_s)


def _outside(policy: Policy, facts: Facts) -> int:
    if not policy.windows or facts.week_minute is None:
        return CLEAR
    return flag(not any(start <= facts.week_minute < end for start, end in spans(policy.windows)))


def spans(windows: dict[str, tuple[str, ...]]) -> list[tuple[int, int]]:
    """Windows as minutes of the week, those over midnight (and over Sunday's) in two. Raises `ValueError`."""
    found = []
    for day, texts in windows.items():
        if day not in DAYS:
            raise ValueError(f"{day!r} is no day; write {', '.join(DAYS)}")
        base = DAYS.index(day) * 24 * 60
        for text in texts:
            first, dash, last = text.partition("-")
            start, end = _minutes(first), _minutes(last)
            if not dash or start == end:
                raise ValueError(f"{text!r} is no window; write 22:00-07:00")
            end += 24 * 60 if end < start else 0
            found += [(base + start, min(base + end, WEEK_MINUTES))]
            if base + end > WEEK_MINUTES:
                found.append((0, base + end - WEEK_MINUTES))
    return sorted(found)


def _minutes(text: str) -> int:
    hours, _, minutes = text.strip().partition(":")
    if not (hours.isdecimal() and minutes.isdecimal() and len(minutes) == 2):
        raise ValueError(f"{text!r} is no time; write 22:00")
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > 24 * 60:
        raise ValueError(f"{text!r} is no time of a day")
    return found


def _running(names: tuple[str, ...], facts: Facts) -> str:
    wanted = {name.lower() for name in names}
    return next((program for program in facts.programs if program.lower() in wanted), "")


def _fixed(text: str) -> Callable[[Policy, Facts], str]:
    return lambda policy, facts: text


RULES: dict[str, Rule[Facts]] = {
    "panic": Rule(
        lambda p, f: flag(f.panic), _fixed("everything was stopped by `potluck panic`"), "Go on with: potluck resume"
    ),
    "shutting-down": Rule(
        lambda p, f: flag(f.shutting_down), _fixed("the machine is shutting down"), "It goes on when it is up again."
    ),
    "suspending": Rule(
        lambda p, f: flag(f.suspending), _fixed("the machine is about to sleep"), "It goes on when it wakes up."
    ),
    "node-trouble": Rule(lambda p, f: flag(f.node_trouble), lambda p, f: f.node_trouble, "See: potluck doctor"),
    "paused": Rule(lambda p, f: flag(f.paused), lambda p, f: f.paused, "Go on with: potluck resume"),
    "draining": Rule(
        lambda p, f: flag(f.draining), _fixed("it finishes what it has, and takes nothing new"),
        "Go on with: potluck resume",
    ),
    "user-active": Rule(
        _present, lambda p, f: f"somebody used this machine {f.idle_s or 0:.0f} s ago",
        "Leave it alone for as long as idle_s says, or lower that.",
    ),
    "presence-unknown": Rule(
        lambda p, f: flag(p.idle_s and f.idle_s is None), _fixed("nobody can tell whether somebody is at this machine"),
        'Say preset = "always", or idle_s = 0, for a machine without people; `potluck doctor` says what is missing.',
    ),
    "ssh-session": Rule(
        lambda p, f: flag(p.ssh and f.ssh_sessions), lambda p, f: f"{f.ssh_sessions} came in by ssh",
        "Close the sessions, or say ssh = false.", 30,
    ),
    "fullscreen": Rule(
        lambda p, f: flag(p.fullscreen and f.fullscreen), lambda p, f: f"{f.fullscreen} fills the screen",
        "Leave full screen, or say fullscreen = false.", 30,
    ),
    "game": Rule(
        lambda p, f: flag(p.games and _running(GAME_HELPERS, f)),
        lambda p, f: f"a game seems to run ({_running(GAME_HELPERS, f)})", "End it, or say games = false.", 30,
    ),
    "exclusive-program": Rule(
        lambda p, f: flag(_running(p.exclusive, f)), lambda p, f: f"{_running(p.exclusive, f)} runs",
        "End it, or take it out of exclusive.", 10,
    ),
    "outside-window": Rule(
        _outside, _fixed("it is not one of the hours in which this machine works"), "Wait for them, or change windows."
    ),
    "on-battery": Rule(
        lambda p, f: flag(f.on_battery and not p.battery), _fixed("it runs on battery"),
        "Plug it in, or say battery = true.", 30,
    ),
    "battery-low": Rule(
        lambda p, f: below(f.battery, p.battery_min) if f.on_battery else CLEAR,
        lambda p, f: f"its battery has {(f.battery or 0) * 100:.0f} % left", "Plug it in, or lower battery_min.", 30,
    ),
    "lid-closed": Rule(
        lambda p, f: flag(f.lid_closed and not p.lid_closed), _fixed("its lid is closed"),
        "Open it, or say lid_closed = true.", 5,
    ),
    "metered": Rule(
        lambda p, f: flag(f.metered and not p.metered), _fixed("its network is metered"),
        "Use another network, or say metered = true.", 30,
    ),
    "cpu-busy": Rule(
        lambda p, f: above(f.others_cpu_milli, (p.others_cpu or 0) * 1000),
        lambda p, f: f"other programs take {(f.others_cpu_milli or 0) / 10:.0f} % of its processors",
        "Wait until they are done, or raise others_cpu.", 60,
    ),
    "memory-low": Rule(
        lambda p, f: below(f.memory_free_mib, p.memory_free_mib),
        lambda p, f: f"{f.memory_free_mib} MiB of memory are free", "End programs, or lower memory_free_mib.", 60,
    ),
    "disk-low": Rule(
        lambda p, f: below(f.disk_free_gib, p.disk_free_gib),
        lambda p, f: f"{f.disk_free_gib:.1f} GiB of disk are free",
        "Make room (`potluck image gc`), or lower disk_free_gib.", 60,
    ),
    "store-full": Rule(
        lambda p, f: flag(f.store_full), _fixed("its image store is full of what is in use"), "Raise store_gib.", 10
    ),
    "cpu-hot": Rule(
        lambda p, f: above(f.cpu_temp_c, p.cpu_temp_c), lambda p, f: f"its processor has {f.cpu_temp_c:.0f} °C",
        "Let it cool down, lend fewer cpus, or raise cpu_temp_c.", 60,
    ),
}  # fmt: skip

GPU_RULES: dict[str, Rule[GpuFacts]] = {
    "gpu-off": Rule(
        lambda p, g: flag({g.uuid, g.index} & set(map(str, p.gpu_off))), lambda p, g: "the owner does not lend it",
        "Take it out of gpu_off.",
    ),
    "gpu-neighbour": Rule(
        lambda p, g: flag(g.neighbour), lambda p, g: "another Potluck node on this machine uses it",
        "Wait until that node is done with it; `potluck doctor` says which it is.",
    ),
    "gpu-used": Rule(
        # Where only a part of its memory is lent, programs of the owner have the rest.
        lambda p, g: flag(g.used and p.gpu_share_vram >= 1), lambda p, g: "a program of the owner uses it",
        "End that program, or lend only a part of its memory: gpu_share_vram.", 10,
    ),
    "gpu-memory-used": Rule(
        lambda p, g: above(g.others_mib, (g.memory_mib or 0) * (1 - p.gpu_share_vram)),
        lambda p, g: f"programs of the owner hold {g.others_mib} MiB of it", "End them, or lower gpu_share_vram.", 10,
    ),
    "gpu-busy": Rule(
        lambda p, g: above(g.others_milli, (p.gpu_others_load or 0) * 1000),
        lambda p, g: f"programs of the owner use it for {(g.others_milli or 0) / 10:.0f} % of the time",
        "Wait until they are done, or raise gpu_others_load.", 30,
    ),
    "gpu-hot": Rule(
        lambda p, g: above(g.temp_c, p.gpu_temp_c), lambda p, g: f"it has {g.temp_c:.0f} °C",
        "Let it cool down, or raise gpu_temp_c.", 60,
    ),
    "gpu-power": Rule(
        lambda p, g: above(g.watts, p.gpu_watts), lambda p, g: f"it takes {g.watts:.0f} W", "Raise gpu_watts.", 60
    ),
}  # fmt: skip
