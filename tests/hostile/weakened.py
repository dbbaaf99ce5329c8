"""Sandboxes that lack one protection, and are whole otherwise: with these, each program must get through.

Only these tests make them. What they let a program reach is always a decoy of the test's own (`decoys`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from tests.hostile.decoys import Decoys

from potluck_node.sandbox import entry, seccomp
from potluck_node.sandbox.bwrap import BOOT, BwrapLauncher
from potluck_node.sandbox.interface import SandboxSpec

# As it is while no test replaces it.
_whole_filters = seccomp.programs

Patch = contextlib.AbstractContextManager[Any]
Change = Callable[[list[str], Decoys], list[str]]


@dataclass(frozen=True)
class Weakness:
    """`lacks` names the one protection that is taken away; the other fields say how."""

    lacks: str
    limits: Mapping[str, int] = field(default_factory=dict)
    binds: Callable[[Decoys], tuple[tuple[Path, str], ...]] = lambda decoys: ()
    options: Change = lambda options, decoys: options
    filters: Callable[[tuple[str, ...]], tuple[bytes, ...]] = _whole_filters
    boot: str = BOOT
    # Taken away from the node, while the program runs.
    node: Callable[[], Patch] = contextlib.nullcontext
    # Arguments of the program that differ from those in a whole sandbox.
    target: Callable[[Decoys], dict[str, Any]] = lambda decoys: {}
    # Whether it is a matter of the sandbox's specification, so that each tier can have it.
    any_tier: bool = False
    # The control group without which other protections hold the program back.
    needs: str = ""


def aimed(weakness: Weakness, target: Callable[[Decoys], dict[str, Any]]) -> Weakness:
    """With other arguments for the program, so that it reaches nothing but the decoys."""
    return replace(weakness, target=target)


class WeakLauncher(BwrapLauncher):
    def __init__(self, weakness: Weakness, decoys: Decoys) -> None:
        super().__init__()
        self._weakness, self._decoys = weakness, decoys

    def _inside(
        self, spec: SandboxSpec, binds: list[tuple[Path, str]], files: contextlib.ExitStack
    ) -> tuple[list[str], list[str], list[int]]:
        with mock.patch.object(seccomp, "programs", self._weakness.filters):
            options, _, handed = super()._inside(spec, binds, files)
        return self._weakness.options(options, self._decoys), [spec.python, "-c", self._weakness.boot], handed


# -- limits and folders


def loosened(**limits: int) -> Weakness:
    return Weakness(f"the limit: {limits}", limits=limits, any_tier=True)


def shown() -> Weakness:
    return Weakness("only the image is shown", binds=lambda decoys: ((decoys.home, "/home"),), any_tier=True)


# -- the filter of system calls


def _filters(**changed: Any) -> Callable[[tuple[str, ...]], tuple[bytes, ...]]:
    def programs(without: tuple[str, ...]) -> tuple[bytes, ...]:
        with mock.patch.multiple(seccomp, **changed):
            return _whole_filters.__wrapped__(without)

    return programs


def allowing(*calls: str) -> Weakness:
    denied = " ".join(name for name in seccomp._DENIED.split() if name not in calls)
    filters = _filters(_ALLOWED=f"{seccomp._ALLOWED} {' '.join(calls)}", _DENIED=denied)
    return Weakness(f"{', '.join(calls)} not filtered", filters=filters)


def allowing_family(family: int) -> Weakness:
    return Weakness(f"sockets of family {family}", filters=_filters(_FAMILIES=(*seccomp._FAMILIES, family)))


def allowing_personality(value: int) -> Weakness:
    return Weakness("any personality", filters=_filters(_PERSONALITIES=(*seccomp._PERSONALITIES, value)))


def without_exceptions() -> Weakness:
    return Weakness("the filter of terminal requests", filters=lambda without: _whole_filters(without)[:1])


def without_abi_check() -> Weakness:
    def programs(without: tuple[str, ...]) -> tuple[bytes, ...]:
        import pyseccomp

        rules = seccomp._allow_list(pyseccomp, without)
        rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ALLOW)
        exceptions = seccomp._exceptions(pyseccomp)
        exceptions.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ALLOW)
        return seccomp._export(rules), seccomp._export(exceptions)

    return Weakness("the check of the architecture", filters=programs)


# -- bubblewrap's options


def sharing(kind: str) -> Weakness:
    """One namespace of the host's. Without its own process numbers, it sees the host's below /proc too."""
    kinds = {"ipc", "pid", "net", "uts", "cgroup"} - {kind}
    instead = [f"--unshare-{each}" for each in sorted(kinds)]

    def change(options: list[str], decoys: Decoys) -> list[str]:
        kept = [each for each in options if kind != "pid" or each != "--as-pid-1"]
        whole = replaced(kept, ["--unshare-all"], instead)
        return replaced(whole, ["--proc", "/proc"], ["--bind", "/proc", "/proc"]) if kind == "pid" else whole

    return Weakness(f"no {kind} namespace", options=change)


def changed(lacks: str, old: list[str], new: Callable[[Decoys], list[str]]) -> Weakness:
    return Weakness(lacks, options=lambda options, decoys: replaced(options, old, new(decoys)))


def replaced(options: list[str], old: list[str], new: list[str]) -> list[str]:
    for at in range(len(options)):
        if options[at : at + len(old)] == old:
            return [*options[:at], *new, *options[at + len(old) :]]
    raise ValueError(f"bwrap's options have no {old}")


def writable_root() -> Weakness:
    def change(options: list[str], decoys: Decoys) -> list[str]:
        at = next(index for index in range(len(options)) if options[index + 2 : index + 3] == ["/"])
        return [*options[:at], "--bind", *options[at + 1 :]]

    return Weakness("the image is writable", options=change)


# -- inside and in the node


def readable_zygote() -> Weakness:
    boot = BOOT.replace("main()", "import potluck_runner.zygote as z; z._set_dumpable = lambda yes: None; main()")
    return Weakness("the zygote's memory is closed", boot=boot)


def soft_limits() -> Weakness:
    script = entry._SCRIPT.replace("ulimit -n", "ulimit -S -n")
    return Weakness("hard limits", node=lambda: mock.patch.object(entry, "_SCRIPT", script))


def unchecked(lacks: str, module: Any, name: str, value: Any) -> Weakness:
    """The node does not check what a worker sends."""
    return Weakness(lacks, node=lambda: mock.patch.object(module, name, value))
