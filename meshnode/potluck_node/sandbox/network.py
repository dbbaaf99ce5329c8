"""A sandbox's way out: a Unix socket, bound into it, behind which a proxy serves what the policy allows.

The sandbox's own network stays empty. What is inside reaches the socket through the runner's forwarder
(`potluck_runner.forward`), or directly; it is not trusted either way. Everything has a bound, so that one sandbox
cannot take the node's descriptors, threads or time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from potluck_node.core.rate import TokenBucket
from potluck_node.sandbox.network_http import serve_client
from potluck_node.sandbox.network_own import own_networks
from potluck_node.sandbox.network_policy import Network, Policy, Refused, Target

if TYPE_CHECKING:
    from trio_typing import TaskStatus

# Where the folder with the socket is inside, and the socket's name; the runner knows both.
PLACE, SOCKET = "/run/potluck/network", "socket"

# Connections at once: browsers open 6 to a host, package managers some dozens. Each costs the node two descriptors.
CONNECTIONS_MAX = 64
# New ones each second; more wait. A loop that is refused a thousand times a second would keep the node busy.
NEW_PER_S = 100
# Together, both ways: a fast line at home; the node's own work goes through the same process.
BYTES_PER_S = 32 << 20
# What one read counts at least: a flood of single bytes costs the node as much time as one of large pieces.
READ_COST_BYTES = 4 << 10
# In a sandbox's life, both ways: more than any model weighs, less than what costs the owner a month's volume.
BYTES_MAX = 256 << 30
# Lookups at once. Each holds a thread, which cannot be stopped, for as long as the resolver tries.
LOOKUPS_MAX = 4
LOOKUP_TIMEOUT_S = 15.0
# Addresses tried one after the other, and seconds for each.
DIALS_MAX, DIAL_TIMEOUT_S = 4, 10.0
# A connection on which nothing moves is closed after so many seconds, as most routers do.
IDLE_TIMEOUT_S = 300.0
# Clients served at once, also those that are being refused, or have asked for nothing yet.
CLIENTS_MAX = 2 * CONNECTIONS_MAX
# Connections that wait to be accepted; the forwarder holds at most half as many.
BACKLOG = 512
# How long no connection is accepted after the machine had no descriptor left, seconds.
EXHAUSTED_PAUSE_S = 0.1
# Different refusals that are reported; a scan would fill the log.
REPORTS_MAX = 32

Resolve = Callable[[Target], Awaitable[Sequence[str]]]


class Gateway:
    """`say` is told, once each, what was forbidden. `resolve` and `own` replace what the machine says."""

    def __init__(
        self,
        policy: Policy,
        say: Callable[[str], None] = lambda _: None,
        resolve: Resolve | None = None,
        own: Callable[[], Sequence[Network]] = own_networks,
    ) -> None:
        self._policy, self._say, self._own = policy, say, own
        self._resolve = resolve or _resolver()
        self._said: set[str] = set()
        self._connections = self._bytes = 0
        self._clients = trio.Semaphore(CLIENTS_MAX)
        self._accepting, self._moving = TokenBucket(NEW_PER_S), TokenBucket(BYTES_PER_S)

    async def serve(self, *, task_status: TaskStatus[Path] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; then every connection is closed. Starts with the folder to bind at `PLACE`."""
        # Nobody but the node enters the outer folder; the sandbox, another user where the node is root, sees the inner.
        outer = tempfile.mkdtemp(prefix="potluck-network-")
        try:
            with trio.socket.socket(socket.AF_UNIX) as listener:
                folder = await _listen(listener, Path(outer))
                async with trio.open_nursery() as clients:
                    task_status.started(folder)
                    await self._accept(listener, clients)
        finally:
            shutil.rmtree(outer, ignore_errors=True)

    async def _accept(self, listener: trio.socket.SocketType, clients: trio.Nursery) -> None:
        while True:
            await self._clients.acquire()
            try:
                client, _ = await listener.accept()
            except OSError:
                self._clients.release()
                await trio.sleep(EXHAUSTED_PAUSE_S)
                continue
            await _pay(self._accepting, 1)
            clients.start_soon(self._serve_client, client)

    async def _serve_client(self, client: trio.socket.SocketType) -> None:
        async with trio.SocketStream(client) as stream:
            with contextlib.ExitStack() as held, trio.CancelScope() as idle:
                held.callback(self._clients.release)

                async def passed(amount: int) -> None:
                    idle.deadline = trio.current_time() + IDLE_TIMEOUT_S
                    self._count(amount)
                    await _pay(self._moving, max(amount, READ_COST_BYTES))

                await serve_client(stream, partial(self._connect, held), passed, self._tell)

    def _count(self, amount: int) -> None:
        self._bytes += amount
        if self._bytes > BYTES_MAX:
            raise Refused(403, f"This sandbox has moved its {BYTES_MAX >> 30} GiB, which is all that one may.")

    def _tell(self, reason: str) -> None:
        if reason not in self._said and len(self._said) < REPORTS_MAX:
            self._said.add(reason)
            self._say(reason)

    async def _connect(self, held: contextlib.ExitStack, target: Target) -> trio.SocketStream:
        """Connect, for as long as `held` is open. Raises `Refused`."""
        held.enter_context(self._one_connection())
        self._policy.check_target(target)
        addresses = await self._look_up(target)
        self._policy.check_addresses(target, addresses, self._own())
        return await _dial(target, addresses)

    @contextlib.contextmanager
    def _one_connection(self) -> Iterator[None]:
        if self._connections >= CONNECTIONS_MAX:
            raise Refused(503, f"This sandbox has {CONNECTIONS_MAX} connections open, which is all that it may.")
        self._connections += 1
        try:
            yield
        finally:
            self._connections -= 1

    async def _look_up(self, target: Target) -> Sequence[str]:
        if target.address:
            return (target.host,)
        why = "no answer"
        with trio.move_on_after(LOOKUP_TIMEOUT_S):
            try:
                return await self._resolve(target)
            except OSError as error:
                why = error.strerror or str(error)
        raise Refused(502, f"{target.host} could not be looked up: {why}.")


# Makes the gateway of a sandbox from what its function asked for and the owner allows (`potluck.network`), and from
# who is told what was refused.
MakeGateway = Callable[[tuple[str, ...], tuple[str, ...], Callable[[str], None]], Gateway]


def make_gateway(asked: tuple[str, ...], allowed: tuple[str, ...], say: Callable[[str], None]) -> Gateway:
    return Gateway(Policy(asked, allowed), say)


async def _listen(listener: trio.socket.SocketType, outer: Path) -> Path:
    folder = outer / "inner"
    folder.mkdir()
    folder.chmod(0o755)
    await listener.bind(str(folder / SOCKET))
    os.chmod(folder / SOCKET, 0o666)
    listener.listen(BACKLOG)
    return folder


def _resolver() -> Resolve:
    """The machine's own resolver, with threads of its own."""
    threads = trio.CapacityLimiter(LOOKUPS_MAX)

    async def resolve(target: Target) -> Sequence[str]:
        # With the dot, neither the search list nor /etc/hosts applies: names mean the same everywhere.
        found = await trio.to_thread.run_sync(
            lambda: socket.getaddrinfo(f"{target.host}.", target.port, type=socket.SOCK_STREAM),
            limiter=threads,
            abandon_on_cancel=True,  # type: ignore[call-arg]  # newer than the stubs
        )
        return tuple(dict.fromkeys(str(address[0]) for *_, address in found))

    return resolve


async def _dial(target: Target, addresses: Sequence[str]) -> trio.SocketStream:
    """Connect to the first of the checked addresses that answers. Raises `Refused`."""
    why = "no answer"
    for address in addresses[:DIALS_MAX]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            with trio.fail_after(DIAL_TIMEOUT_S):
                await sock.connect((address, target.port))
            return trio.SocketStream(sock)
        except (OSError, trio.TooSlowError) as error:
            sock.close()
            why = getattr(error, "strerror", "") or "no answer"
        except BaseException:
            sock.close()
            raise
    raise Refused(502, f"{target.host} could not be connected to: {why}.")


async def _pay(bucket: TokenBucket, amount: int) -> None:
    wait_us = bucket.wait_us(amount, round(trio.current_time() * 1e6))
    if wait_us:
        await trio.sleep(wait_us / 1e6)
