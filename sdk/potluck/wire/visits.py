"""Gateway ↔ the node of an app's owner, on the stream `/potluck/web/1`: web requests that another node's gateway took.

The payloads are those of `wire.web`, as between gateway and worker, and so are the windows; credit and heartbeats are
those of a lease. A gateway numbers its requests on the stream.
"""

from __future__ import annotations

from potluck.wire.common import Message
from potluck.wire.lease import Credit, Heartbeat

# Requests of one gateway at once: as many as one function may have.
VISITS_MAX = 1000


class VisitBegun(Message, frozen=True):
    """A client asks (`payload` is an `HttpRequest` or a `SocketRequest`); `key` and `secret` prove that it may."""

    number: int
    payload: bytes
    key: str = ""
    secret: str = ""


class VisitPiece(Message, frozen=True):
    """More of its body, or of what it says on its WebSocket."""

    number: int
    payload: bytes


class VisitTook(Message, frozen=True):
    """The client has taken so many items in all."""

    number: int
    items: int


class VisitLeft(Message, frozen=True):
    """The client has gone."""

    number: int


class VisitStarted(Message, frozen=True):
    """A worker has begun it."""

    number: int


class VisitItem(Message, frozen=True):
    """Part of the answer."""

    number: int
    payload: bytes


class VisitTaken(Message, frozen=True):
    """The application has taken so many bytes of pieces in all."""

    number: int
    bytes: int


class VisitEnded(Message, frozen=True):
    """All is answered, by the items, or by `payload` alone."""

    number: int
    payload: bytes = b""


class VisitRefused(Message, frozen=True):
    """The application does not answer it, or no further; so the client is told this, if nothing was said yet."""

    number: int
    status: int
    text: str
    retry_after_s: int = 0


FromGateway = VisitBegun | VisitPiece | VisitTook | VisitLeft | Credit | Heartbeat
FromOwner = VisitStarted | VisitItem | VisitTaken | VisitEnded | VisitRefused | Credit | Heartbeat
