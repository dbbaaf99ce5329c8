"""Build steps in sandboxes: a `Workshop` made of bubblewrap and overlayfs. Blocking: builds run in threads.

A step is root in a user namespace of its own, on top of a tree that it cannot change: an overlay, mounted by a user
without rights (Linux 5.11), catches what it writes. It sees nothing of the host but the network, and that only if it
asks. What only real root can do (owners, device nodes) seems to succeed (`builder_seccomp`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from potluck.errors import SandboxError
from potluck_images.errors import ImageBuildError
from potluck_images.process import Ended, Say, run
from potluck_images.secrecy import Mask
from potluck_images.workshop import StepCommand
from potluck_node import builder_seccomp, debian
from potluck_node.builder_gpus import Lend, lent, with_gpus
from potluck_node.builder_limits import LIMITS, STEP_TIMEOUT_S, Watch
from potluck_node.builder_network import StepNetwork
from potluck_node.sandbox import entry, overlay, seccomp
from potluck_node.sandbox.cgroups import Cgroups, Group
from potluck_node.sandbox.detect import Machine, detect
from potluck_node.sandbox.unprivileged import DROP, UNPRIVILEGED_UID, Stage

_ISOLATION = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", "0", "--gid", "0", "--hostname", "potluck-build"),
    *("--disable-userns", "--die-with-parent", "--clearenv"),
)
# What a package manager's root needs among its own files and processes.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETFCAP", "SETGID", "SETUID", "SYS_CHROOT")

# How a step reaches the network from this machine. Never part of an image or of a cache key.
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

# The authorities that this machine trusts, under the names by which programs look for them: a company's own is among
# them where its proxy opens connections.
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_AUTHORITIES = "/run/potluck-authorities.pem"
_AUTHORITY_NAMES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")

# Programs besides bwrap, and Debian's packages that have them.
_PROGRAMS = {"unshare": "util-linux", "mount": "mount", "setpriv": "util-linux"}


class BwrapWorkshop:
    """A `Workshop` (see `potluck_images.workshop`). Raises `ImageBuildError` when this machine cannot do it."""

    def __init__(self, groups: Cgroups | None = None, lend: Lend | None = None, for_others: bool = False) -> None:
        """`for_others`: the steps are a stranger's."""
        self._lend, self._for_others = lend, for_others
        self._is_root = os.geteuid() == 0
        self._drop = DROP if self._is_root else ()
        self._network = StepNetwork(self._drop, for_others)
        self._groups = groups
        self._machine: Machine | None = None

    def run(self, command: StepCommand, say: Say) -> Ended:
        self._make_place(command)
        with self._limited(command.upper, command.scratch) as (group, watch), contextlib.ExitStack() as files:
            command, devices = with_gpus(command, files.enter_context(lent(self._lend, command.gpu)))
            words, handed = self._command(command, group, files, "--new-session", *devices)
            timeout_s = min(command.timeout_s or STEP_TIMEOUT_S, STEP_TIMEOUT_S)
            mask = Mask(command.secrets.values())
            ended = run(words, say, timeout_s, cwd=Path("/"), handed=handed, watch=watch, mask=mask)
            watch.check_group(group)
        if ended.status and overlay.FAILED in ended.lines:
            raise _no_overlay(ended)
        return ended

    def talk(self, command: StepCommand) -> int:
        """Run the command on this process's own terminal; returns its exit status. The system call filter keeps it
        from typing into the terminal."""
        self._make_place(command)
        with self._limited(command.upper, command.scratch) as (group, _), contextlib.ExitStack() as files:
            words, handed = self._command(command, group, files)
            return subprocess.run(words, pass_fds=handed, check=False).returncode

    def debian(self, suite: str, packages: tuple[str, ...], folder: Path, say: Say) -> None:
        self._own(folder)
        scratch = folder.with_name("scratch")
        scratch.mkdir(exist_ok=True)
        self._own(scratch)
        with self._limited(folder, scratch) as (group, watch), contextlib.ExitStack() as files:
            moved, places = self._reach([(folder, "folder"), (scratch, "scratch")])
            filters = [memfd(builder_seccomp.fake_root(), files)]
            words = debian.command(self._find().bwrap, suite, packages, places[0], places[1], filters[0])
            words = [*entry.command(LIMITS, group, moved, self._drop), *words]
            ended = run(words, say, STEP_TIMEOUT_S, cwd=Path("/"), handed=filters, watch=watch)
        debian.check(ended)

    def _find(self) -> Machine:
        """What the machine can do, tried once."""
        if self._machine is None:
            for program, package in _PROGRAMS.items():
                if shutil.which(program) is None:
                    raise ImageBuildError(f"Build steps need {program}.", fix=f"sudo apt install {package}")
            try:
                self._machine = detect(self._drop, groups=self._groups)
            except SandboxError as error:
                raise ImageBuildError(error.what, why=error.why, fix=error.fix) from None
        return self._machine

    def _make_place(self, command: StepCommand) -> None:
        """The overlay's folders, owned by who the step is on this machine; so is the tree below."""
        overlay.make(command.upper.parent)
        self._own(command.scratch)
        overlay.own_tree(command.root)

    def _own(self, path: Path) -> None:
        if self._is_root:
            os.chown(path, UNPRIVILEGED_UID, UNPRIVILEGED_UID)

    def _reach(self, binds: Sequence[tuple[Path, str]]) -> tuple[list[tuple[Path, Path]], list[Path]]:
        """What to mount where before rights are dropped, and the paths as they are seen after that."""
        if not self._is_root:
            return [], [path for path, _ in binds]
        try:
            moved, reachable = Stage().prepare(binds)
        except SandboxError as error:
            raise ImageBuildError(error.what, why=error.why, fix=error.fix) from None
        return moved, [path for path, _ in reachable]

    @contextlib.contextmanager
    def _limited(self, *written: Path) -> Iterator[tuple[Group | None, Watch]]:
        machine = self._find()
        group = machine.groups.create(LIMITS) if machine.groups.folders else None
        try:
            yield group, Watch(written, group)
        finally:
            if group is not None and not group.remove():
                group.remove_later()

    def _command(
        self, command: StepCommand, group: Group | None, files: contextlib.ExitStack, *more: str
    ) -> tuple[list[str], list[int]]:
        binds = [(command.root, "/"), (command.upper.parent, "work"), *command.binds]
        moved, (root, work, *shown) = self._reach(binds)
        apart, more_moved = self._network.before() if command.network else ([], [])
        filters = [memfd(program, files) for program in (*seccomp.programs(), builder_seccomp.fake_root())]
        targets = [target for _, target in command.binds]
        options = [*_options(command, self._for_others)]
        options += [*_mounts(command, work, list(zip(shown, targets, strict=True)), self._network.resolver()), *more]
        for descriptor in filters:
            options += ["--add-seccomp-fd", str(descriptor)]
        arguments = memfd(b"".join(os.fsencode(option) + b"\0" for option in options), files)
        bwrap = [self._find().bwrap, "--args", str(arguments), "--", *command.argv]
        outer = entry.command(LIMITS, group, [*moved, *more_moved], self._drop)
        return [*outer, *apart, *overlay.command(root, work), *bwrap], [*filters, arguments]


def _options(command: StepCommand, for_others: bool) -> Iterator[str]:
    yield from _ISOLATION
    yield from () if command.network else ("--unshare-net",)
    yield from ("--cap-drop", "ALL")
    for name in _CAPABILITIES:
        yield from ("--cap-add", f"CAP_{name}")
    variables = (_network() if command.network else {}) | dict(command.env)
    for name, value in ((_without_logins(variables) if for_others else variables) | dict(command.secrets)).items():
        yield from ("--setenv", name, value)


def _without_logins(variables: dict[str, str]) -> dict[str, str]:
    """Without this machine's proxies and package indexes that name a user."""
    return {name: value for name, value in variables.items() if "@" not in value or os.environ.get(name) != value}


def _network() -> dict[str, str]:
    variables = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    return variables | (dict.fromkeys(_AUTHORITY_NAMES, _AUTHORITIES) if _authorities() else {})


def _authorities() -> str:
    """The machine's bundle of certificates, or "" where there is none."""
    path = os.environ.get("SSL_CERT_FILE") or _BUNDLE
    return path if os.path.isfile(path) else ""


def _mounts(
    command: StepCommand, work: Path, binds: Sequence[tuple[Path, str]], resolver: Path | None
) -> Iterator[str]:
    yield from ("--bind", str(overlay.merged(work)), "/", "--proc", "/proc", "--dev", "/dev")
    yield from ("--size", str(16 << 20), "--tmpfs", "/run")
    yield from ("--bind", str(work / command.scratch.name), "/tmp")
    for source, target in binds:
        yield from ("--ro-bind", str(source), target)
    if command.network and resolver:
        yield from ("--ro-bind", str(resolver.resolve()), "/etc/resolv.conf")
    if command.network and _authorities():
        yield from ("--ro-bind", _authorities(), _AUTHORITIES)
    yield from ("--chdir", command.workdir)


def memfd(data: bytes, files: contextlib.ExitStack) -> int:
    """A readable copy of `data`, closed by `files`."""
    descriptor = os.memfd_create("potluck-build")
    files.callback(os.close, descriptor)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _no_overlay(ended: Ended) -> ImageBuildError:
    return ImageBuildError(
        "The file system for a build step could not be mounted.",
        why="\n".join(ended.lines),
        fix="Linux 5.11 or newer is needed, and the node's data folder on a file system such as ext4, xfs, btrfs.",
    )
