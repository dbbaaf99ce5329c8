"""Builds the libp2p host: Noise and Yamux over TCP, nothing else, with our own guards on what comes in."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import multiaddr
import trio
from libp2p.connection_types import ConnectionType
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.utils.address_validation import expand_wildcard_address

from potluck.wire.lane import MAGIC
from potluck.wire.reach import MAGIC as PROBE_MAGIC
from potluck.wire.reach import NONCE_BYTES
from potluck_ledger.keys import PrivateKey
from potluck_node.transport.common import STREAMS_PER_PEER_MAX
from potluck_node.transport.interface import CONNECT_TIMEOUT_S, Admission, NotAdmittedError
from potluck_node.transport.libp2p.admission import Door
from potluck_node.transport.libp2p.guards import (
    HANDSHAKE_TIMEOUT_S,
    BufferedTcp,
    BufferedTcpTransport,
    GuardedYamux,
    Handshakes,
    TooManyError,
)
from potluck_node.transport.libp2p.lanes import Lane, LaneError, Lanes
from potluck_node.transport.libp2p.library import protected
from potluck_node.transport.libp2p.reach.ports import hold

log = logging.getLogger("potluck.transport")

# Connections of one node. A mesh of that many nodes is fully connected; in larger ones the DHT finds the way.
CONNECTIONS_MAX = 512

# Incoming streams of one connection: ours, and the short ones of DHT and identify.
INCOMING_STREAMS_MAX = 2 * STREAMS_PER_PEER_MAX


class GuardedSwarm(Swarm):  # type: ignore[misc]
    """A swarm that silent sockets cannot block and that no stream handler can take down."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._handshakes = Handshakes()
        # Set at the next connection that is admitted.
        self.news = trio.Event()
        self.lanes: Lanes | None = None
        # On a private mesh.
        self.door: Door | None = None
        self.serve_lane: Callable[[Lane], Awaitable[None]] = _no_lane
        # Whether a probe with this nonce is waited for.
        self.probed: Callable[[bytes, trio.SocketStream], bool] = lambda nonce, stream: False
        self.auto_connector.run_background_task = _nothing

    def _schedule_auto_connect(self) -> None:
        """Nothing: the library would dial known peers until it holds half of `CONNECTIONS_MAX`, whatever its
        low watermark says. Whom we hold is our decision.
        """

    async def notify_connected(self, conn: Any) -> None:
        if self.door is not None:
            await self.door.enter(conn)
        await super().notify_connected(conn)
        news, self.news = self.news, trio.Event()
        news.set()

    async def _handle_inbound_connection(self, read_write_closer: Any, maddr: Any) -> None:
        # Replaces the library's, which holds one of 250 tokens for each connection until the node stops, also
        # when the connection has ended: it refuses the 251st for ever.
        stream = BufferedTcp(read_write_closer.stream)
        address = stream.source()
        try:
            with self._handshakes.counted(address):
                lane = await self._serve_inbound(stream, address, maddr)
        except TooManyError as error:
            log.info("refused a connection: %s", error)
            return
        if lane:
            await self.serve_lane(lane)

    async def _serve_inbound(self, stream: BufferedTcp, address: str, maddr: Any) -> Lane | None:
        """Serve a connection to its end; or return the lane that it is, which counts by its peer alone."""
        connection = lane = None
        probe = False
        with self._handshakes.slot(address) as scope:
            scope.deadline = trio.current_time() + self._handshake_s
            try:
                magic = await stream.begins_with(MAGIC, PROBE_MAGIC)
                if magic == PROBE_MAGIC:
                    probe = self.probed(await stream.read_exactly(NONCE_BYTES), stream.stream)
                elif magic and self.lanes is not None:
                    lane = await self.lanes.accept(stream)
                elif not magic:
                    connection = await self.upgrade_inbound_raw_conn(RawConnection(stream, False), maddr)
            except (LaneError, ConnectionError) as error:
                log.debug("no lane for a connection from %s: %s", address, error)
                return None
            except NotAdmittedError as error:
                log.info("a connection from %s is not admitted: %s", address, error)
                return None
        if scope.cancelled_caught:
            log.debug("handshake from %s took too long, or was pushed out by newer ones", address)
            return None
        if probe:
            await hold(stream.stream)
        if connection is not None:
            await connection.event_closed.wait()
        return lane

    @property
    def _handshake_s(self) -> float:
        return CONNECT_TIMEOUT_S if self.door else HANDSHAKE_TIMEOUT_S

    async def serve_circuit(self, end: Any, relay: str, maddr: Any) -> None:
        """Secure what comes through a relay as what comes by TCP, and serve it to its end. Raises what the library
        does."""
        address = f"relay {relay}"
        with self._handshakes.counted(address):
            with self._handshakes.slot(address) as scope:
                scope.deadline = trio.current_time() + CONNECT_TIMEOUT_S
                raw = RawConnection(end, False, ConnectionType.RELAYED, [maddr])
                connection = await self.upgrade_inbound_raw_conn(raw, maddr)
            if not scope.cancelled_caught:
                await connection.event_closed.wait()

    async def dial_over(self, end: Any, peer: Any, maddr: Any, kind: Any) -> Any:
        """Secure what was opened to a peer, `kind` being direct or relayed: its muxer. Raises what the library
        raises."""
        raw: Any = RawConnection(end, True, kind, [maddr])
        connection = await self.upgrade_outbound_raw_conn(protected(raw, self.psk) if self.psk else raw, peer)
        return connection.muxed_conn

    def set_stream_handler(self, stream_handler: Any) -> None:
        async def guarded(stream: Any) -> None:
            # An exception that leaves a handler ends the swarm's service, and with it the whole host.
            try:
                if len(stream.swarm_conn.get_streams()) > INCOMING_STREAMS_MAX:
                    await stream.reset()
                elif self.door is not None and not await self.door.lets_in(stream):
                    await self.door.answer(stream)
                else:
                    await stream_handler(stream)
            except* Exception as failed:  # noqa: BLE001 - the guard is meant for everything
                log.debug("incoming stream of %s failed: %r", stream.muxed_conn.peer_id, failed.exceptions)
                with suppress(Exception):
                    await stream.reset()

        super().set_stream_handler(guarded)


async def _no_lane(lane: Lane) -> None:
    """Until the transport says what is to be done with lanes."""


async def _nothing(nursery: trio.Nursery) -> None:
    """In place of the library's auto-connector."""


def build_host(key: PrivateKey, psk: bytes | None, admission: Admission | None = None) -> Any:
    """A host with our identity; it neither listens nor dials before it is run."""
    private = Ed25519PrivateKey.from_bytes(key.seed)
    pair = KeyPair(private, private.get_public_key())
    peer = ID.from_pubkey(pair.public_key)
    store = PeerStore()
    store.add_key_pair(peer, pair)
    noise = NoiseTransport(pair, noise_privkey=create_new_key_pair().private_key)
    # Plaintext would believe whoever knows a public key; mplex is slow; QUIC and WebSocket pass by the
    # pre-shared key.
    upgrader = TransportUpgrader({NOISE: noise}, {YAMUX: GuardedYamux}, negotiate_timeout=int(CONNECT_TIMEOUT_S))
    swarm = GuardedSwarm(
        peer,
        store,
        upgrader,
        transports=[BufferedTcpTransport()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=_connection_config(CONNECT_TIMEOUT_S if admission else HANDSHAKE_TIMEOUT_S),
        psk=psk.hex() if psk else None,
    )
    swarm.door = Door(admission) if admission else None
    return BasicHost(
        swarm,
        addrs_factory=_concrete,
        disable_identify_address_discovery=True,
        negotiate_timeout=int(CONNECT_TIMEOUT_S),
    )


def _connection_config(inbound_s: float) -> Any:
    return ConnectionConfig(
        max_connections=CONNECTIONS_MAX,
        high_watermark=CONNECTIONS_MAX,
        min_connections=0,
        low_watermark=0,
        inbound_upgrade_timeout=inbound_s,
        outbound_upgrade_timeout=CONNECT_TIMEOUT_S,
        dial_timeout=CONNECT_TIMEOUT_S,
        outbound_stream_protocol_negotiation_timeout=CONNECT_TIMEOUT_S,
        inbound_stream_protocol_negotiation_timeout=CONNECT_TIMEOUT_S,
    )


def _concrete(addresses: list[Any]) -> list[Any]:
    """Replace 0.0.0.0 and :: by the addresses of this machine, loopback last."""
    found = []
    for address in addresses:
        found += _expand(address)
    return sorted(dict.fromkeys(found), key=lambda address: "/127." in str(address) or "/::1/" in str(address))


def _expand(address: Any) -> list[Any]:
    text = str(address)
    if "/ip4/0.0.0.0/" not in text and "/ip6/::/" not in text:
        return [address]
    port = int(address.value_for_protocol("tcp"))
    found = [str(each) for each in expand_wildcard_address(address, port)]
    # On a machine without a network the library finds nothing and gives the wildcard back.
    own = [each.replace("/0.0.0.0/", "/127.0.0.1/").replace("/ip6/::/", "/ip6/::1/") for each in found]
    return [multiaddr.Multiaddr(each) for each in own]
