"""Topics over gossipsub, with settings that suit offers: small, frequent, from everyone."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from potluck_node.transport.common import TopicInbox

log = logging.getLogger("potluck.transport")

# Seconds between repairs of the gossip mesh. The library's default is 120; the specification's is 1.
HEARTBEAT_S = 1

# Neighbours in the mesh of a topic: wanted, fewest, most (gossipsub specification's defaults).
DEGREE, DEGREE_LOW, DEGREE_HIGH = 6, 4, 12

# One neighbour hands on what all others publish: a thousand nodes with an offer every five seconds are 200
# messages a second. The library's default of 10 would drop nearly all of them.
MESSAGES_PER_SECOND_MAX = 1000.0

# Messages being checked at once; a flood beyond that is dropped. Each costs a signature check of about 0.1
# ms.
CHECKING_MAX = 256

# An RPC of gossipsub: an offer is at most 16 KiB and several travel together.
RPC_BYTES_MAX = 1 << 20


class GuardedPubsub(Pubsub):  # type: ignore[misc]
    """Pubsub that garbage cannot take down: an exception in `push_msg` would end the service."""

    _checking = 0

    def _forget_all_subscriptions(self, peer_id: ID) -> None:
        # The library forgets them whenever a stream ends. A peer that moved has another one by then, on which it said
        # all this already, and says it once only: nothing more would be handed on to it.
        if not self._peer_is_connected(peer_id):
            super()._forget_all_subscriptions(peer_id)

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        if self._checking >= CHECKING_MAX:
            return
        self._checking += 1
        try:
            await super().push_msg(msg_forwarder, msg)
        except* Exception as failed:  # noqa: BLE001 - the guard is meant for everything
            log.debug("dropped a message from %s: %r", msg_forwarder, failed.exceptions)
        finally:
            self._checking -= 1


class Gossip:
    """The topics of one host. Messages are signed by their author and checked here (strict signing)."""

    def __init__(self, host: Any) -> None:
        self._peer = host.get_id()
        self._router = GossipSub(
            [PROTOCOL_ID_V11],
            degree=DEGREE,
            degree_low=DEGREE_LOW,
            degree_high=DEGREE_HIGH,
            heartbeat_interval=HEARTBEAT_S,
            # These prefer neighbours from three different addresses, which a lab behind one NAT does not
            # have.
            eclipse_protection_enabled=False,
            adaptive_gossip_enabled=False,
            max_messages_per_topic_per_second=MESSAGES_PER_SECOND_MAX,
        )
        self._pubsub = GuardedPubsub(host, self._router, strict_signing=True, max_inbound_rpc_size=RPC_BYTES_MAX)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(background_trio_service(self._router))
            await stack.enter_async_context(background_trio_service(self._pubsub))
            await self._pubsub.wait_until_ready()
            yield

    async def publish(self, topic: str, data: bytes) -> None:
        await self._pubsub.publish(topic, data)

    async def listen(self, topic: str, inbox: TopicInbox) -> None:
        """Move the messages of others into `inbox` until cancelled. A node relays the topics that it listens
        to.
        """
        async for message in await self._pubsub.subscribe(topic):
            author = ID(message.from_id)
            if author != self._peer:
                inbox.put(str(author), message.data)
