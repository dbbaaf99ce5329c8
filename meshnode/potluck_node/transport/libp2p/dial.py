"""Listening, dialling and closing: what goes wrong there gets a deadline and a clear error."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import trio
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from multiaddr import Multiaddr

from potluck_node.core.reach import CIRCUIT, address_of, ways
from potluck_node.transport.interface import (
    CONNECT_TIMEOUT_S,
    PeerUnreachableError,
    TransportError,
)
from potluck_node.transport.libp2p.guards import BufferedTcp

log = logging.getLogger("potluck.transport")

# Addresses of one peer, and peers whose addresses are kept: what a hostile offer can make us remember.
ADDRESSES_PER_PEER_MAX = 8
# Of them, those that lead through relays.
RELAYS_PER_PEER_MAX = 2
PEERS_KNOWN_MAX = 10_000

# How long the addresses of a peer that we reached are known to the library's own services, seconds.
ADDRESS_TTL_S = 3600

# A connection on which a stream is not opened within so long is dead, seconds: as a lease without heartbeats.
ALIVE_S = 3.0

# Closing all connections and sockets, seconds.
SHUTDOWN_S = 3.0
# Within it: saying goodbye to the peers.
GOODBYE_S = 1.0


class Dialer:
    """Reaches peers over the addresses we know."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self._swarm = host.get_network()
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        # Brings us to a peer with the help of relays; raises `PeerUnreachableError`.
        self.through: Callable[[str, tuple[str, ...]], Awaitable[None]] = _no_relays
        self._reached: OrderedDict[str, str] = OrderedDict()
        # Connections that nobody else gets in the same way: punched ones, and those through relays.
        self._met: WeakSet[Any] = WeakSet()

    def peers(self) -> tuple[str, ...]:
        """Peers with a live connection."""
        door = self._swarm.door
        return tuple(peer for peer in self.connected() if door is None or door.admits(peer))

    def connected(self) -> tuple[str, ...]:
        """Those, too, that are not admitted."""
        connections = self._swarm.connections.items()
        return tuple(str(peer) for peer, all_ in connections if any(not one.is_closed for one in all_))

    async def disconnect(self, peer: str) -> None:
        """Close all connections with a peer."""
        for connection in tuple(self._swarm.connections.get(peer_id(peer), ())):
            await _close(connection)

    def learn(self, peer: str, addresses: tuple[str, ...]) -> None:
        relayed = [each for each in addresses if CIRCUIT in each][:RELAYS_PER_PEER_MAX]
        direct = [each for each in addresses if CIRCUIT not in each][: ADDRESSES_PER_PEER_MAX - len(relayed)]
        self._known[peer] = (*direct, *relayed)
        self._known.move_to_end(peer)
        if len(self._known) > PEERS_KNOWN_MAX:
            self._known.popitem(last=False)

    def hint(self, peer: str, addresses: tuple[str, ...]) -> None:
        """As `learn`, from somebody else: besides what the peer itself said."""
        self.learn(peer, tuple(dict.fromkeys((*self._known.get(peer, ()), *addresses))))

    async def connect(self, address: str) -> Any:
        """Dial one address; returns the libp2p peer id. Raises `PeerUnreachableError`."""
        maddr, peer = parse(address)
        if peer == self._host.get_id():
            raise PeerUnreachableError(f"{address} is this node itself")
        if str(peer) not in self.peers():
            if CIRCUIT in address:
                await self.through(str(peer), ways([address]).relays)
            else:
                await self._dial(peer, [maddr])
        return peer

    async def reach(self, peer: str) -> Any:
        """Be connected to a peer: over all addresses known, and soon also with the help of its relays, whichever comes
        first. Raises `PeerUnreachableError`."""
        target = peer_id(peer)
        if peer in self.peers():
            return target
        found = ways(self._known.get(peer, ()))
        if not found.relays:
            await self._dial(target, self._addresses(target))
            return target
        failures: list[str] = []

        async def attempt(way: Callable[[], Awaitable[None]], after_s: float) -> None:
            await trio.sleep(after_s)
            try:
                await way()
                nursery.cancel_scope.cancel()
            except PeerUnreachableError as error:
                failures.append(str(error))

        async with trio.open_nursery() as nursery:
            if found.direct:
                nursery.start_soon(attempt, lambda: self._dial(target, self._addresses(target)), 0.0)
            nursery.start_soon(attempt, lambda: self.through(peer, found.relays), found.ask_after_s)
        if peer not in self.peers():
            raise PeerUnreachableError("; ".join(failures) or f"the connection with {peer} is gone again")
        return target

    async def dial(self, peer: str, addresses: tuple[str, ...]) -> None:
        """Dial these addresses of a peer. Raises `PeerUnreachableError`."""
        await self._dial(peer_id(peer), [Multiaddr(each) for each in addresses])

    async def upgrade(self, peer: str, tcp: trio.SocketStream) -> None:
        """Make a connection with a peer of one by TCP, as whoever dialled it. Raises `PeerUnreachableError`."""
        host, port = tcp.socket.getpeername()[:2]
        await self.secure(peer, BufferedTcp(tcp), Multiaddr(address_of(host, port)), ConnectionType.DIRECT)

    async def secure(self, peer: str, end: Any, maddr: Any, kind: Any = ConnectionType.RELAYED) -> None:
        """As `upgrade`, over anything that carries bytes."""
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                self._met.add(await self._swarm.dial_over(end, peer_id(peer), maddr, kind))
        except BaseException as error:
            with trio.CancelScope(shield=True), suppress(Exception):
                await end.close()
            if not isinstance(error, Exception):
                raise
            raise PeerUnreachableError(f"{peer} was reached at {maddr}, but: {reason(error)}") from error

    async def until_connected(self, peer: str, seconds: float) -> bool:
        """Wait so long for a peer to be connected; whether it is."""
        with trio.move_on_after(seconds):
            while peer not in self.peers():
                await self._swarm.news.wait()
        return peer in self.peers()

    async def open_here(self, peer: str, protocol: str) -> Any:
        """A raw stream over a direct connection that there is; nobody is dialled. Raises `PeerUnreachableError`."""
        connection = self._direct(peer)
        if connection is None or peer not in self.peers():
            raise PeerUnreachableError(f"{peer} is not connected, or through a relay alone")
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                return await _open_on(connection, protocol)
        except Exception as error:
            raise PeerUnreachableError(f"{peer} does not open {protocol}: {reason(error)}") from error

    async def weed(self, protocol: str) -> None:
        """Of peers with several connections, close those on which nothing is answered, but the newest: a peer that
        moved is connected anew long before its old connection is known to be dead."""
        async with trio.open_nursery() as nursery:
            for connections in list(self._swarm.connections.values()):
                for connection in connections[:-1]:
                    if time.time() - connection._created_at < CONNECT_TIMEOUT_S:
                        continue  # both dialled, and it may be in its introduction still
                    nursery.start_soon(_close_if_dead, connection, protocol)

    def _direct(self, peer: str) -> Any:
        """The newest connection that goes through no relay, or None."""
        for connection in reversed(self._swarm.connections.get(peer_id(peer), ())):
            if not connection.is_closed and connection.muxed_conn.get_remote_address() is not None:
                return connection
        return None

    def remote_host(self, peer: str) -> str | None:
        """Where the peer is connected from; None if only through a relay, or not at all."""
        connection = self._direct(peer)
        return connection.muxed_conn.get_remote_address()[0] if connection else None

    def is_relayed(self, peer: str) -> bool:
        """Whether all that goes to the peer goes through a relay."""
        return self._direct(peer) is None and peer in self.connected()

    def dialled_at(self, peer: str) -> tuple[str, int] | None:
        """Host and port at which we dialled the peer, so that others may do that, too; None for all other
        connections."""
        connection = self._direct(peer)
        muxed = connection.muxed_conn if connection else None
        if muxed is None or not muxed.is_initiator or muxed in self._met:
            return None
        host, port = muxed.get_remote_address()
        return host, port

    def can_be_dialled(self, peer: str) -> bool:
        """Whether the address at which the peer is connected is one of those that it is dialled at."""
        host = self.remote_host(peer)
        names = {name for name, _ in self._places(peer)}
        return host is not None and (host in names or not names or not all(map(_is_ip, names)))

    async def open(self, peer: str, protocol: str) -> Any:
        """A raw libp2p stream. Raises `PeerUnreachableError`."""
        target = await self.reach(peer)
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                return await self._host.new_stream(target, [TProtocol(protocol)])
        except trio.TooSlowError:
            # Whoever has nothing to say for so long has gone, or moved: the next attempt begins anew.
            await self.disconnect(peer)
            raise PeerUnreachableError(f"{peer} did not accept a stream within {CONNECT_TIMEOUT_S} s") from None
        except Exception as error:
            raise PeerUnreachableError(f"{peer} does not open {protocol}: {reason(error)}") from error

    def endpoints(self, peer: str) -> list[tuple[str, int]]:
        """Hosts and TCP ports at which the peer may be: the one that was dialled, or else all that are known."""
        return self._places(peer)

    def _places(self, peer: str) -> list[tuple[str, int]]:
        texts = [self._reached[peer]] if peer in self._reached else self._texts(peer_id(peer))
        return [found for text in texts if (found := _endpoint(text))]

    def _texts(self, peer: Any) -> list[str]:
        """Addresses without relays, as text."""
        texts = [each for each in self._known.get(str(peer), ()) if CIRCUIT not in each]
        with suppress(Exception):  # the library raises for peers that it does not know
            texts += [str(address) for address in self._host.get_peerstore().addrs(peer)]
        return list(dict.fromkeys(text.partition("/p2p/")[0] for text in texts))

    def _addresses(self, peer: Any) -> list[Any]:
        texts = self._texts(peer)
        found = []
        for text in texts:
            with suppress(Exception):  # from others, so possibly nonsense
                found.append(Multiaddr(text))
        if not found:
            raise PeerUnreachableError(f"{peer} is not connected and no address of it is known")
        return found[:ADDRESSES_PER_PEER_MAX]

    async def _dial(self, peer: Any, addresses: list[Any]) -> None:
        """Race the addresses. The library would try only the first, and then refuse the peer for a minute."""
        failures: dict[str, str] = {}

        async def attempt(address: Any) -> None:
            try:
                await self._swarm.dial_addr(address, peer)
            except Exception as error:  # noqa: BLE001 - the library has no common base for what can go wrong here
                failures[str(address)] = reason(error)
            else:
                self._remember(peer, address)
                nursery.cancel_scope.cancel()

        with trio.move_on_after(CONNECT_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    nursery.start_soon(attempt, address)
        if str(peer) not in self.peers():
            raise PeerUnreachableError(_tried(peer, addresses, failures))

    def _remember(self, peer: Any, address: Any) -> None:
        log.info("%s is reached at %s", peer, address)
        self._host.get_peerstore().add_addrs(peer, [address], ADDRESS_TTL_S)
        self._swarm.unblock_peer(peer)
        self._reached[str(peer)] = str(address)
        self._reached.move_to_end(str(peer))
        if len(self._reached) > PEERS_KNOWN_MAX:
            self._reached.popitem(last=False)


async def _no_relays(peer: str, relays: tuple[str, ...]) -> None:
    raise PeerUnreachableError("this node uses no relays")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _tried(peer: Any, addresses: list[Any], failures: dict[str, str]) -> str:
    silent = f"no answer within {CONNECT_TIMEOUT_S} s"
    tried = "; ".join(f"{address}: {failures.get(str(address), silent)}" for address in addresses)
    return f"cannot reach {peer} ({tried})"


def parse(address: str) -> tuple[Any, Any]:
    """The multiaddr and the peer id. Raises `PeerUnreachableError` when it is no address."""
    transport, mark, peer = address.rpartition("/p2p/")
    try:
        if not mark:
            raise ValueError("it does not end in /p2p/<peer>")
        return Multiaddr(transport), peer_id(peer)
    except PeerUnreachableError:
        raise
    except Exception as error:  # noqa: BLE001 - parsers of others' text raise many kinds
        raise PeerUnreachableError(f"{address!r} is not an address that can be dialled: {error}") from None


def _endpoint(address: str) -> tuple[str, int] | None:
    """The host and port of "/ip4/127.0.0.1/tcp/4001", None for anything else."""
    match address.split("/")[1:]:
        case ["ip4" | "ip6" | "dns" | "dns4" | "dns6", host, "tcp", port] if port.isdecimal():
            return host, int(port)
    return None


def peer_id(peer: str) -> Any:
    try:
        return ID.from_string(peer)
    except Exception as error:  # noqa: BLE001 - parsers of others' text raise many kinds
        raise PeerUnreachableError(f"{peer!r} is not a peer id: {error}") from None


def reason(error: BaseException) -> str:
    """The innermost cause: the library wraps "connection refused" into three layers of its own."""
    while error.__cause__ is not None or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__  # type: ignore[assignment]
    return str(error) or type(error).__name__


async def listen(host: Any, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Listen; returns the addresses with the ports that were taken. Raises `TransportError`."""
    for address in addresses:
        _check_free(address)
        if not await host.get_network().listen(Multiaddr(address)):
            raise TransportError(f"cannot listen on {address}")
    return tuple(str(address) for address in host.get_transport_addrs())


def _check_free(address: str) -> None:
    """The library listens with SO_REUSEPORT: a second node on the same port would get half of the first one's
    peers.
    """
    maddr = Multiaddr(address)
    version = "ip6" if "/ip6/" in address else "ip4"
    family = socket.AF_INET6 if version == "ip6" else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((maddr.value_for_protocol(version), int(maddr.value_for_protocol("tcp"))))
            probe.listen()
        except OSError as error:
            raise TransportError(f"cannot listen on {address}: {error.strerror}; is another node using it?") from None


async def shut_down(host: Any, services: trio.CancelScope) -> None:
    """Close listeners and connections; `services` gets a deadline for whatever else is left.

    Shielded: after a failure inside the library this runs in a nursery that is cancelled already, and the library
    itself then closes nothing: its listeners are system tasks that would hold the port for ever.
    """
    services.deadline = trio.current_time() + SHUTDOWN_S
    swarm = host.get_network()
    with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_S):
        for listener in list(swarm.listeners.values()):
            await listener.close()
        async with trio.open_nursery() as nursery:
            for connection in swarm.get_connections():
                nursery.start_soon(_close, connection)


async def _open_on(connection: Any, protocol: str) -> Any:
    raw = await connection.new_stream()
    await MultiselectClient().select_one_of([TProtocol(protocol)], MultiselectCommunicator(raw))
    return raw


async def _close_if_dead(connection: Any, protocol: str) -> None:
    try:
        with trio.fail_after(ALIVE_S):
            await (await _open_on(connection, protocol)).reset()
    except Exception as error:  # noqa: BLE001 - the library has no common base for what can go wrong here
        log.info("an old connection with %s is dead: %s", connection.muxed_conn.peer_id, reason(error))
        await _close(connection)


async def _close(connection: Any) -> None:
    # The library closes one connection after the other and takes 0.2 s for each.
    with suppress(Exception), trio.move_on_after(GOODBYE_S):
        await connection.close()
    with suppress(Exception):
        await connection.muxed_conn.secured_conn.close()
