"""`Sandbox`: a worker without a function, in which a program runs commands. Names and meaning are Modal's."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from potluck.absent import Absent
from potluck.asking import Both, Steps, drive
from potluck.calls import WithAio
from potluck.errors import (
    ConnectionError,
    Error,
    InputCancellation,
    InvalidError,
    NotFoundError,
    SandboxTerminatedError,
    SandboxTimeoutError,
    TimeoutError,
)
from potluck.sandbox_files import SandboxFilesystem
from potluck.sandbox_process import ContainerProcess, StreamReader, StreamWriter, errand
from potluck.tunnels import Tunnel

if TYPE_CHECKING:
    from potluck.app import App
    from potluck.image import Image
    from potluck.secret import Secret
    from potluck.volume import Volume
    from potluck.wire.errands import ServiceFacts, Services
    from potluck.wire.sandbox import Ended, Ports, Ready, Result, Setup, Started

# The agent ends by itself when its time is over; this is for one that does not, seconds.
GRACE_S = 10
# As Modal's limit.
TIMEOUT_S_MAX = 24 * 3600 - GRACE_S
# As Modal's: 30 days.
SNAPSHOT_TTL_S = 30 * 24 * 3600
# As a shell says of what was killed.
KILLED = 137
# How long `terminate` waits for the agent to hand over what was printed, seconds.
TERMINATE_S = 10.0


class Probe(NamedTuple):
    """What says that a sandbox is ready: a command that succeeds, or a port that can be connected to, tried every
    `interval_ms`."""

    exec_argv: tuple[str, ...] | None = None
    tcp_port: int | None = None
    interval_ms: int = 100

    @staticmethod
    def with_exec(*argv: str, interval_ms: int = 100) -> Probe:
        return Probe(exec_argv=argv, interval_ms=interval_ms)

    @staticmethod
    def with_tcp(port: int, *, interval_ms: int = 100) -> Probe:
        return Probe(tcp_port=port, interval_ms=interval_ms)


class Create:
    """`Sandbox.create(…)`, and `await Sandbox.create.aio(…)`."""

    def __call__(
        self,
        *args: str,
        app: App | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        image: Image | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        timeout: int = 300,
        idle_timeout: int | None = None,
        workdir: str | None = None,
        gpu: str | None = None,
        region: str | Sequence[str] | None = None,
        volumes: Mapping[str | PurePosixPath, Volume] | None = None,
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        block_network: bool | None = None,
        outbound_domain_allowlist: Sequence[str] | None = None,
        pty: bool = False,
        encrypted_ports: Sequence[int] = (),
        h2_ports: Sequence[int] = (),
        unencrypted_ports: Sequence[int] = (),
        readiness_probe: Probe | None = None,
        sandbox: str = "",
        labels: Mapping[str, str] | None = None,
        verbose: bool = False,
    ) -> Sandbox:
        """Start a sandbox, which runs the command `args`, or waits if there is none, and ends with it, or after
        `timeout` seconds, or `idle_timeout` seconds in which nothing was done with it.

        It is recorded as a spawned call, and goes on when the program ends; the other parameters are those of
        `@app.function`. Ports are reached as `tunnels()` says. Raises `InvalidError`, `AlreadyExistsError` when one of
        that `name` runs in the app, and whatever building the image raises. `verbose` changes nothing.
        """
        settings: dict[str, Any] = {
            "image": image, "env": env, "secrets": secrets, "gpu": gpu, "region": region, "cpu": cpu, "memory": memory,
            "block_network": block_network, "outbound_domain_allowlist": outbound_domain_allowlist, "labels": labels,
            "sandbox": sandbox or None, "volumes": volumes,
        }  # fmt: skip
        if app is None:
            raise InvalidError(
                "Sandbox.create() needs an app.", fix='Give app=potluck.App.lookup("name", create_if_missing=True).'
            )
        ports = (*encrypted_ports, *h2_ports, *unencrypted_ports)
        setup = _setup(args, timeout, idle_timeout or 0, workdir or "", pty, ports, readiness_probe or Probe())
        settings["timeout"] = timeout + GRACE_S
        return Sandbox(_spawn(app, setup, settings, name or "", tags or {}))

    async def aio(self, *args: str, **settings: Any) -> Sandbox:
        import asyncio

        return await asyncio.to_thread(self, *args, **settings)


def _setup(
    args: tuple[str, ...], timeout: float, idle: float, workdir: str, pty: bool, ports: tuple[int, ...], probe: Probe
) -> Setup:
    from potluck.wire.sandbox import Setup

    if not 0 < timeout <= TIMEOUT_S_MAX or not 0 <= idle <= TIMEOUT_S_MAX:
        raise InvalidError("A sandbox cannot last that long.", fix=f"Give seconds, at most {TIMEOUT_S_MAX}.")
    if not all(isinstance(arg, str) for arg in (*args, *(probe.exec_argv or ()))):
        raise InvalidError("The command of a sandbox is text.", fix='Write Sandbox.create("ls", "-l", app=app).')
    token = secrets.token_hex(16)
    timeout_us, idle_us, probe_us = round(timeout * 1e6), round(idle * 1e6), probe.interval_ms * 1000
    ready = tuple(probe.exec_argv or ())
    return Setup(token, args, timeout_us, idle_us, workdir, pty, ports, ready, probe.tcp_port or 0, probe_us)


def _spawn(app: App, setup: Setup, settings: dict[str, Any], name: str, tags: Mapping[str, str]) -> str:
    """Record the call that is the sandbox; returns its number."""
    from msgspec.structs import replace

    from potluck import wire
    from potluck.agent.agent import serve
    from potluck.app import App
    from potluck.calls import _client
    from potluck.running import Running
    from potluck.wire.errands import Service
    from potluck.wire.spawned import SpawnCall, Spawned

    own = App(app.name, image=app._image)
    function = own.function(include_source=False, single_use_containers=True, name="sandbox", **settings)(serve)
    running = Running(own, None)
    try:
        # Its token makes it a pool of its own: nothing that another sandbox left is there.
        spec = replace(running.spec(function), salt=bytes.fromhex(setup.token), writable=True)
    finally:
        running.close()
    payload = function._payload((wire.encode(setup),), {})
    service = Service(setup.token, name, tuple(sorted(tags.items())))
    return _client().ask(lambda number: SpawnCall(number, spec, (payload,), service=service), Spawned).call


class List:
    """`Sandbox.list(…)` yields those that run; `async for … in Sandbox.list.aio(…)`."""

    def __call__(self, *, app_id: str | None = None, tags: Mapping[str, str] | None = None) -> Iterator[Sandbox]:
        """The newest first. `app_id` is the name of an app."""
        return (Sandbox(facts.call) for facts in drive(_listed(app_id or "", tags or {})))

    async def aio(self, *, app_id: str | None = None, tags: Mapping[str, str] | None = None) -> AsyncIterator[Sandbox]:
        from potluck.asking import drive_async

        for facts in await drive_async(_listed(app_id or "", tags or {})):
            yield Sandbox(facts.call)


def _listed(app: str, tags: Mapping[str, str]) -> Steps[tuple[ServiceFacts, ...]]:
    from potluck.wire.errands import ListServices

    found: Services = yield ListServices(app, tuple(sorted(tags.items())))
    return found.services


class Sandbox(Absent):
    """Made by `Sandbox.create`, `from_id`, `from_name` or `list`. All methods have `.aio` twins.

    What ran in it is lost when its machine is: it is not run again elsewhere.
    """

    create = Create()
    list = List()

    def __init__(self, call: str) -> None:
        from potluck.wire.sandbox import MAIN, STDERR, STDOUT

        self._call = call
        self._found: Result | Error | None = None
        self.stdin = StreamWriter(call, MAIN)
        self.stdout: StreamReader[str] = StreamReader(call, MAIN, STDOUT, True, self._result)
        self.stderr: StreamReader[str] = StreamReader(call, MAIN, STDERR, True, self._result)
        self.filesystem = SandboxFilesystem(call)
        self.exec, self.wait, self.poll = Both(self._exec), Both(self._wait), WithAio(self._poll)
        self.terminate, self.tunnels = Both(self._terminate), Both(self._tunnels)
        self.wait_until_ready = Both(self._wait_until_ready)
        self.snapshot_filesystem = Both(self._snapshot_filesystem)
        self.get_tags, self.set_tags = Both(self._get_tags), Both(self._set_tags)

    def __repr__(self) -> str:
        return f"<Sandbox {self.object_id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Sandbox, (self._call,)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    @property
    def object_id(self) -> str:
        """By which `from_id` finds it, for 7 days after its end."""
        return f"sb-{self._call.removeprefix('fc-')}"

    @property
    def returncode(self) -> int | None:
        """Its exit status, once it has ended and `wait()` or `poll()` has seen it."""
        return self._found.returncode if self._found and not isinstance(self._found, Error) else None

    @staticmethod
    def from_id(sandbox_id: str) -> Sandbox:
        """The one with this `object_id`. Raises `NotFoundError` when it is used and there is none."""
        if not sandbox_id.startswith("sb-"):
            raise InvalidError(f"{sandbox_id!r} is not the number of a sandbox.", fix="They begin with sb-.")
        return Sandbox(f"fc-{sandbox_id.removeprefix('sb-')}")

    @staticmethod
    def from_name(app_name: str, name: str, *, environment_name: str | None = None) -> Sandbox:
        """The one of this name that runs in an app. Raises `NotFoundError`."""
        for facts in drive(_listed(app_name, {})):
            if facts.name == name:
                return Sandbox(facts.call)
        raise NotFoundError(f"No sandbox {name} runs in the app {app_name}.", fix="Make one: Sandbox.create(name=…).")

    def detach(self) -> None:
        """Changes nothing: a sandbox goes on when the program ends."""

    # Commands

    def _exec(
        self,
        *args: str,
        timeout: int | None = None,
        workdir: str | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        text: bool = True,
        bufsize: Literal[-1, 1] = -1,
        pty: bool = False,
    ) -> Steps[ContainerProcess[Any]]:
        """Run a command in it. Raises `InvalidError` when it cannot be run, and `NotFoundError` when the sandbox has
        ended."""
        from potluck.secret import joined, values
        from potluck.wire.sandbox import Exec, Started

        if not args:
            raise InvalidError("exec() takes a command.", fix='Write exec("ls", "-l").')
        given = dict(values(joined(tuple(secrets or ()))))
        given |= {key: value for key, value in (env or {}).items() if value is not None}
        request = Exec(args, tuple(given.items()), workdir or "", round((timeout or 0) * 1e6), pty)
        started: Started = yield from errand(self._call, request, Started, secret=bool(secrets))
        return ContainerProcess(self._call, started.process, text)

    # Its end

    def _wait(self, raise_on_termination: bool = True) -> Steps[None]:
        """Until it has ended. Raises `SandboxTimeoutError` when its time was over, `SandboxTerminatedError` when it was
        ended by `terminate()`, for idleness or with its machine (unless `raise_on_termination` is False), and what
        kept it from starting."""
        yield from self._last()
        self._check_end(raise_on_termination)

    def _last(self) -> Steps[None]:
        """Wait for its command, then for the call that it is."""
        from potluck.wire.sandbox import MAIN, WAIT_US_MAX, Await, Ended

        try:
            while True:
                found: Ended = yield from errand(self._call, Await(MAIN, WAIT_US_MAX), Ended)
                if found.returncode is not None:
                    break
        except NotFoundError:
            pass
        self._result()

    def _check_end(self, raise_on_termination: bool) -> None:
        if isinstance(self._found, InputCancellation):
            if raise_on_termination:
                raise SandboxTerminatedError("The sandbox was ended.", why=self._found.why)
        elif isinstance(self._found, Error):
            raise self._found
        elif self._found and self._found.reason == "timeout":
            raise SandboxTimeoutError("The sandbox's time is over.", fix="Give Sandbox.create() a larger timeout=.")
        elif self._found and self._found.reason != "exit" and raise_on_termination:
            raise SandboxTerminatedError("The sandbox was ended.", why=self._found.reason)

    def _poll(self) -> int | None:
        """Its exit status; None while it runs, or waits for a machine."""
        try:
            self._look(0)
        except TimeoutError:
            return None
        if isinstance(self._found, InputCancellation):
            return KILLED
        self._check_end(raise_on_termination=False) if isinstance(self._found, Error) else None
        return self.returncode

    def _result(self) -> Result:
        """What is left of it once it has ended; waits for that. Raises what kept it from running."""
        from potluck.wire.sandbox import Result

        self._look(None)
        if isinstance(self._found, InputCancellation):
            return Result(KILLED, "terminated", b"", 0, b"", 0)
        if isinstance(self._found, Error):
            raise self._found
        assert self._found
        return self._found

    def _look(self, timeout: float | None) -> None:
        """Raises `TimeoutError` while it runs."""
        from potluck import wire
        from potluck.calls import FunctionCall
        from potluck.wire.sandbox import Result

        if self._found is None:
            try:
                self._found = wire.decode(cast(bytes, FunctionCall(self._call).get(timeout)), Result)
            except Error as error:
                # Neither says anything of the sandbox: it was waited for no longer, or the node is away.
                if type(error) in (TimeoutError, ConnectionError):
                    raise
                self._found = error

    def _terminate(self, *, wait: bool = False) -> Steps[int | None]:
        """End it, with what runs in it. With `wait`, until it has ended: returns its exit status."""
        from potluck.calls import FunctionCall
        from potluck.wire.sandbox import Done, Terminate

        try:
            yield from errand(self._call, Terminate(), Done)
            self._look(TERMINATE_S)
        except (NotFoundError, TimeoutError):
            FunctionCall(self._call).cancel()
        if not wait:
            return None
        yield from self._last()
        return self._poll()

    # Its files

    def _snapshot_filesystem(self, timeout: int = 55, *, ttl: int | None = SNAPSHOT_TTL_S) -> Steps[Image]:
        """An image of its root as it is now, without /tmp, /dev/shm and volumes, for other sandboxes and functions. The
        node keeps it for `ttl` seconds (None: for ever).

        As every image, it can be had by whoever of the mesh knows its id. Raises `ImageBuildError`, `TimeoutError`
        after `timeout` seconds, and `InvalidError` where the machine gives sandboxes a root that can only be read.
        """
        from potluck.image import Image
        from potluck.wire.errands import KeepImage
        from potluck.wire.sandbox import Made, Snapshot

        if timeout <= 0 or (ttl is not None and ttl <= 0):
            raise InvalidError("snapshot_filesystem() takes seconds above 0.", fix="Give ttl=None to keep it for ever.")
        made: Made = yield from errand(self._call, Snapshot(round(timeout * 1e6)), Made)
        yield KeepImage(self._call, made.image, round((ttl or 0) * 1e6))
        return Image.from_id(made.image)

    # Ports, readiness, tags

    def _tunnels(self, timeout: int = 50) -> Steps[dict[int, Tunnel]]:
        """Where each of its ports is reached. `timeout` is passed over. Raises `RefusedError` where it may not have
        any: its peer is not trusted by the node, or the setting `tunnels` is none."""
        from potluck.wire.sandbox import AwaitPorts, Ports

        found: Ports = yield from errand(self._call, AwaitPorts(), Ports)
        return {port: Tunnel(host, there, host, there) for port, host, there in found.ports}

    def _wait_until_ready(self, *, timeout: int = 300) -> Steps[None]:
        """Until its `readiness_probe` succeeds, or, without one, until it runs. Raises `TimeoutError`."""
        from time import monotonic

        from potluck.wire.sandbox import WAIT_US_MAX, AwaitReady, Ready

        deadline = monotonic() + timeout
        while (left_s := deadline - monotonic()) > 0:
            found: Ready = yield from errand(self._call, AwaitReady(min(WAIT_US_MAX, round(left_s * 1e6))), Ready)
            if found.yes:
                return
        raise TimeoutError("The sandbox is not ready.", why=f"{timeout} s are over", fix="Read its stderr, or wait.")

    def _facts(self) -> Steps[ServiceFacts]:
        for facts in (yield from _listed("", {})):
            if facts.call == self._call:
                return facts
        raise NotFoundError("This sandbox has ended.")

    def _get_tags(self) -> Steps[dict[str, str]]:
        """What it is marked with, while it runs."""
        return dict((yield from self._facts()).tags)

    def _set_tags(self, tags: Mapping[str, str]) -> Steps[None]:
        """In place of those that it has."""
        from potluck.wire.errands import SetTags

        yield SetTags(self._call, tuple(sorted(tags.items())))
