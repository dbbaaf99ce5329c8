"""Tunnels: connections to a port of the owner's machine are carried to a port in a worker's sandbox.

Requests of shared state (`wire.state`): the worker asks for the next connection, and what came on it, and sends what
goes back, one piece after the other; so a slow side slows the other down, and nothing is kept anywhere.
"""

from __future__ import annotations

from potluck.wire.common import Message

# One read or write. Larger pieces save no time on a lease, and cost memory on each machine.
PIECE_BYTES_MAX = 256 << 10
# Of one worker's app on one lease; each is a port of the owner's machine.
TUNNELS_MAX = 16
# Connections of one tunnel; each waits in two threads of the worker. Others wait to be accepted.
CONNECTIONS_MAX = 64


class OpenTunnel(Message, frozen=True):
    """Listen on the owner's machine, for this port of the worker. Answered by `TunnelOpened`."""

    port: int


class NextConnection(Message, frozen=True):
    """Wait for one. The tunnel ends when nobody waits for this any more. Answered by `Connected`."""

    tunnel: int


class Pull(Message, frozen=True):
    """What came on a connection; empty at its end. Answered by `Pulled`."""

    tunnel: int
    connection: int


class Push(Message, frozen=True):
    """What goes back; empty when nothing more does. Answered by `Pulled`, empty."""

    tunnel: int
    connection: int
    data: bytes


class HangUp(Message, frozen=True):
    """A connection is over. Answered by `Pulled`, empty."""

    tunnel: int
    connection: int


class CloseTunnel(Message, frozen=True):
    """Answered by `Pulled`, empty."""

    tunnel: int


class TunnelOpened(Message, frozen=True):
    tunnel: int
    host: str
    port: int


class Connected(Message, frozen=True):
    connection: int


class Pulled(Message, frozen=True):
    data: bytes = b""


TunnelRequest = OpenTunnel | NextConnection | Pull | Push | HangUp | CloseTunnel
TunnelAnswer = TunnelOpened | Connected | Pulled
