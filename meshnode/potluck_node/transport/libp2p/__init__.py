"""The mesh over py-libp2p. Only this package imports libp2p or multiaddr; importing it takes over half a
second.
"""

from potluck_node.transport.libp2p.transport import Libp2pTransport

__all__ = ["Libp2pTransport"]
