"""Listening, dialling and closing: what goes wrong there gets a deadline and a clear error."""

from __future__ import annotations

import logging
import socket
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from potluck_node.transport.interface import (
    CONNECT_TIMEOUT_S,
    PeerUnreachableError,
    TransportError,
)

log = logging.getLogger("potluck.transport")

# Addresses of one peer, and peers whose addresses are kept: what a hostile offer can make us remember.
ADDRESSES_PER_PEER_MAX = 8
PEERS_KNOWN_MAX = 10_000

# How long the addresses of a peer that we reached are known to the library's own services, seconds.
ADDRESS_TTL_S = 3600

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
        self._reached: OrderedDict[str, str] = OrderedDict()

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
        for connection in tuple(self._swarm.connections.get(_peer_id(peer), ())):
            await _close(connection)

    def learn(self, peer: str, addresses: tuple[str, ...]) -> None:
        self._known[peer] = addresses[:ADDRESSES_PER_PEER_MAX]
        self._known.move_to_end(peer)
        if len(self._known) > PEERS_KNOWN_MAX:
            self._known.popitem(last=False)

    async def connect(self, address: str) -> Any:
        """Dial one address; returns the libp2p peer id. Raises `PeerUnreachableError`."""
        maddr, peer = parse(address)
        if peer == self._host.get_id():
            raise PeerUnreachableError(f"{address} is this node itself")
        if str(peer) not in self.peers():
            await self._dial(peer, [maddr])
        return peer

    async def reach(self, peer: str) -> Any:
        """Be connected to a peer, by racing all addresses known. Raises `PeerUnreachableError`."""
        target = _peer_id(peer)
        if peer not in self.peers():
            await self._dial(target, self._addresses(target))
        return target

    async def open(self, peer: str, protocol: str) -> Any:
        """A raw libp2p stream. Raises `PeerUnreachableError`."""
        target = await self.reach(peer)
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                return await self._host.new_stream(target, [TProtocol(protocol)])
        except trio.TooSlowError:
            raise PeerUnreachableError(f"{peer} did not accept a stream within {CONNECT_TIMEOUT_S} s") from None
        except Exception as error:
            raise PeerUnreachableError(f"{peer} does not open {protocol}: {_reason(error)}") from error

    def endpoints(self, peer: str) -> list[tuple[str, int]]:
        """Hosts and TCP ports at which the peer may be: the one that was dialled, or else all that are known."""
        texts = (
            [self._reached[peer]] if peer in self._reached else [str(each) for each in self._addresses(_peer_id(peer))]
        )
        return [found for text in texts if (found := _endpoint(text))]

    def _addresses(self, peer: Any) -> list[Any]:
        texts = list(self._known.get(str(peer), ()))
        with suppress(Exception):  # the library raises for peers that it does not know
            texts += [str(address) for address in self._host.get_peerstore().addrs(peer)]
        found = []
        for text in dict.fromkeys(text.partition("/p2p/")[0] for text in texts):
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
                failures[str(address)] = _reason(error)
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
        self._host.get_peerstore().add_addrs(peer, [address], ADDRESS_TTL_S)
        self._swarm.unblock_peer(peer)
        self._reached[str(peer)] = str(address)
        self._reached.move_to_end(str(peer))
        if len(self._reached) > PEERS_KNOWN_MAX:
            self._reached.popitem(last=False)


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
        return Multiaddr(transport), _peer_id(peer)
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


def _peer_id(peer: str) -> Any:
    try:
        return ID.from_string(peer)
    except Exception as error:  # noqa: BLE001 - parsers of others' text raise many kinds
        raise PeerUnreachableError(f"{peer!r} is not a peer id: {error}") from None


def _reason(error: BaseException) -> str:
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


async def _close(connection: Any) -> None:
    # The library closes one connection after the other and takes 0.2 s for each.
    with suppress(Exception), trio.move_on_after(GOODBYE_S):
        await connection.close()
    with suppress(Exception):
        await connection.muxed_conn.secured_conn.close()
