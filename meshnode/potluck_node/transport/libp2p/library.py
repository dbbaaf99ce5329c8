"""What has to be set inside py-libp2p 0.8.1 before it is used. Imported first by everything in this package.

Each line was measured or read in the library's source; `docs/decisions/transport-libp2p.md` has the figures.
"""

from __future__ import annotations

import logging

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.network.swarm as swarm
import libp2p.stream_muxer.yamux.yamux as yamux
from libp2p.custom_types import TProtocol
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, value_store
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.pnet.psk_conn import PskConn

# Our mesh's own DHT: nodes of the public IPFS network never get into our tables. The library has a
# `protocol_prefix` parameter but does not use it.
KAD_PROTOCOL = TProtocol("/potluck/kad/1")

# Records that one node stores for others. With the size limit of one record (records.RECORD_BYTES_MAX) this
# is at most 256 MiB; the library's own limits would allow 50 GB.
RECORDS_STORED_MAX = 4096

# Largest Yamux frame, header included, in bytes: four whole Noise messages. The library's 65,536 spill 17
# bytes into a second message (-16 % bulk); larger frames are faster (+15 to +40 %) but make a heartbeat
# behind one wait: this one takes 21 ms on 100 Mbit/s.
YAMUX_FRAME_BYTES = 4 * 65_519


def protected(raw: RawConnection, psk: str) -> PskConn:
    """With the pre-shared key. The library's own forgets where the connection leads, and whether it is relayed."""
    made = PskConn(raw, psk)
    made.is_initiator = raw.is_initiator
    made._connection_type, made._actual_addresses = raw.get_connection_type(), raw.get_transport_addresses()
    return made


for module in (common, kad_dht, peer_routing, provider_store, value_store):
    module.PROTOCOL_ID = KAD_PROTOCOL
value_store.MAX_VALUE_STORE_SIZE = RECORDS_STORED_MAX
yamux.MAX_MESSAGE_SIZE = YAMUX_FRAME_BYTES
swarm.new_protected_conn = protected
# Dials that the library makes by itself (DHT, gossip) would wait 250 ms after each success.
swarm._HAPPY_EYEBALLS_DELAY = 0.0
# It logs through the root logger, which installs a handler there and prints all of our own messages twice.
swarm_connection.logging = logging.getLogger("libp2p.connection")
# Peers come and go; the library calls that errors. Our own log says what matters.
logging.getLogger("libp2p").setLevel(logging.CRITICAL)
