"""The owner's policy as text: the table [policy] of config.toml, checked, read and written. Blocking.

All other settings and every comment of the file stay as they are, or nothing is written.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from potluck.errors import InvalidError
from potluck_node.core.policy_rules import Policy, spans

# Far more than anybody writes; a client cannot have the node parse without end.
TEXT_BYTES_MAX = 64 << 10
HEADER = "[policy]\n"
YES_NO = "true or false"
# What is right for each setting.
RIGHT = {
    "preset": '"always", "idle" or "nights"',
    "idle_s": "seconds since somebody was at the machine, as 180; 0 asks nothing",
    "windows": 'times by weekday, as { sat = ["00:00-24:00"], mon = ["22:00-07:00"] }',
    "games": YES_NO,
    "fullscreen": YES_NO,
    "ssh": YES_NO,
    "exclusive": 'names of programs, as ["blender"]',
    "battery": YES_NO,
    "battery_min": "a part of its charge from 0 to 1, as 0.5",
    "metered": YES_NO,
    "lid_closed": YES_NO,
    "others_cpu": "a part of all processors from 0 to 1, as 0.5; 0 asks nothing",
    "memory_free_mib": "whole MiB, as 1024; 0 asks nothing",
    "disk_free_gib": "GiB, as 5; 0 asks nothing",
    "cpu_temp_c": "degrees Celsius, as 95; 0 asks nothing",
    "gpu_temp_c": "degrees Celsius, as 87; 0 asks nothing",
    "gpu_watts": "watts, as 250; 0 asks nothing",
    "gpu_others_load": "a part of the time from 0 to 1, as 0.3; 0 asks nothing",
    "gpu_off": "numbers or uuids of GPUs, as [0]",
    "gpu_share_vram": "a part of a GPU's memory from 0 to 1, as 0.5",
    "grace_s": "seconds, as 30",
}
PARTS = ("battery_min", "others_cpu", "gpu_others_load", "gpu_share_vram")


def checked(values: object) -> Policy:
    """A policy of what TOML had. Raises `InvalidError`, which names the key and what would be right."""
    if not isinstance(values, dict):
        raise InvalidError("The policy is no table.", fix="Write its settings below a line [policy].")
    for key in values:
        _check_known(key)
    try:
        policy = msgspec.convert(values, Policy)
    except msgspec.ValidationError as error:
        key = re.split(r"[.\[`]", str(error).partition("$.")[2])[0]
        raise _wrong(key, str(error).partition(" - at")[0]) from None
    for key in RIGHT:
        value = getattr(policy, key)
        if isinstance(value, int | float) and not 0 <= value <= (1 if key in PARTS else math.inf):
            raise _wrong(key, f"it is {value}")
        if isinstance(value, float) and math.isinf(value):
            raise _wrong(key, "it has no end")
    try:
        spans(policy.windows or {})
    except ValueError as error:
        raise _wrong("windows", str(error)) from None
    return policy


def _check_known(key: str) -> None:
    if key not in RIGHT:
        near = difflib.get_close_matches(key, RIGHT, 1)
        fix = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(RIGHT)}."
        raise InvalidError(f"There is no setting {key!r} of a policy.", fix=fix)


def _wrong(key: str, why: str) -> InvalidError:
    return InvalidError(f"The policy's {key} does not fit.", why=why, fix=f"Right would be: {RIGHT[key]}.")


def parsed(text: str) -> Policy:
    """A policy of the table's text, which is what follows the line [policy]. Raises `InvalidError`."""
    return checked(_values(text))


def _values(text: str) -> dict[str, Any]:
    if len(text) > TEXT_BYTES_MAX:
        raise InvalidError("So long a policy cannot be meant.", fix=f"Use at most {TEXT_BYTES_MAX >> 10} KiB.")
    try:
        values = tomllib.loads(HEADER + text)
    except tomllib.TOMLDecodeError as error:
        fix = "Write lines as: idle_s = 300. The line [policy] is not part of it."
        raise InvalidError("The policy is not valid TOML.", why=str(error), fix=fix) from None
    if others := values.keys() - {"policy"}:
        fix = "Write a table of its own as [policy.windows]."
        raise InvalidError(f"{min(others)} is not a part of the policy.", fix=fix)
    return dict(values["policy"])


def read(path: Path) -> str:
    """The table's text in a file. Raises `InvalidError` for a file that is no TOML."""
    return _split(_read(path))[1]


def write(path: Path, text: str, keep: bool = False, unset: tuple[str, ...] = ()) -> Policy:
    """Set the table, or with `keep` only the settings that the text has, and take out those in `unset`. Raises
    `InvalidError`, also when the rest of the file could not stay as it is."""
    for key in unset:
        _check_known(key)
    whole = _read(path)
    before, old, after = _split(whole)
    text = _laid_over(old, _values(text), unset) if keep else text
    policy = parsed(text)
    end = "" if not text or text.endswith("\n") else "\n"
    fresh = f"{before}{text}{end}{after}"
    if _others(fresh) != _others(whole) or checked(tomllib.loads(fresh)["policy"]) != policy:
        raise InvalidError(f"{path} has its policy in a way that cannot be edited.", fix="Edit the file, and restart.")
    _replace(path, fresh)
    return policy


def _laid_over(old: str, values: dict[str, Any], unset: tuple[str, ...]) -> str:
    import tomlkit

    document = tomlkit.parse(HEADER + old)
    table: Any = document["policy"]
    for key, value in values.items():
        if isinstance(value, dict):
            # A table with a line of its own would take the settings after it.
            table.pop(key, None)
            table.add(key, tomlkit.inline_table())
            table[key].update(value)
        else:
            table[key] = value
    for key in unset:
        table.pop(key, None)
    return document.as_string().removeprefix(HEADER)


def _others(whole: str) -> dict[str, Any]:
    return {key: value for key, value in tomllib.loads(whole).items() if key != "policy"}


def _read(path: Path) -> str:
    try:
        text = path.read_text() if path.exists() else ""
        tomllib.loads(text)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} cannot be used.", why=str(error), fix="Mend it first.") from None
    return text


def _split(whole: str) -> tuple[str, str, str]:
    """A file as what comes before the table's text, that text, and what comes after it."""
    import tomlkit

    document = tomlkit.parse(whole)
    table: Any = document.get("policy")
    body = table.as_string() if hasattr(table, "as_string") else None
    head = re.search(r"^[ \t]*\[[ \t]*policy[ \t]*\][^\n]*(\n|\Z)", whole, re.MULTILINE)
    if head and body is not None and whole.startswith(body, head.end()):
        # Comments between the last blank line and the next table speak of that one.
        tail = re.search(r"\n(\s*\n([ \t]*(#[^\n]*)?\n)*)\Z", body)
        end = head.end() + (tail.start(1) if tail else len(body))
        return whole[: head.end()] + ("" if head[1] else "\n"), whole[head.end() : end], whole[end:]
    # There is none, or it is written in dots, in one line, or in several places.
    old = tomlkit.dumps({"policy": table.unwrap()}).removeprefix(HEADER) if table is not None else ""
    if table is not None:
        document.remove("policy")
    rest = document.as_string().rstrip()
    return (rest + "\n\n" if rest else "") + HEADER, old, ""


def _replace(path: Path, text: str) -> None:
    """All of it or nothing, whenever the machine stops. Who may read the file stays as it is."""
    path = path.resolve()
    fresh = path.with_name(f"{path.name}.new")
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InvalidError(f"{path} cannot be written.", why=str(error), fix="Make room, or mend its folder.") from None
