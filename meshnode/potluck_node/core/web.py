"""What the gateway decides: where a request goes, whether it is taken, and what its client is told. Pure."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from potluck.wire.common import Failure, Message
from potluck.wire.web import (
    BodyPiece,
    Headers,
    HttpRequest,
    ResponseHead,
    SocketAccepted,
    SocketBytes,
    SocketClosed,
    SocketRequest,
    SocketText,
)

# Requests at once: each holds a task and at most some 2 MiB, for a client or a worker that is slow.
REQUESTS_MAX = 2000
# Those of one function, whether they run or wait for a worker: others must get through, too.
FUNCTION_REQUESTS_MAX = 1000
# Of one request: as much as the largest of today's browsers and servers send.
HEADER_BYTES_MAX = 64 << 10
# As Modal's, bytes.
BODY_BYTES_MAX = 4 << 30
# When to try again, seconds: soon where others are only ahead, later where a machine has to be found.
RETRY_SOON_S, RETRY_LATER_S = 1, 10

# Headers by which clients prove that they may call; workers never see them. Modal's names serve as well.
KEY_HEADERS = (b"potluck-key", b"modal-key")
SECRET_HEADERS = (b"potluck-secret", b"modal-secret")
_OURS = frozenset((*KEY_HEADERS, *SECRET_HEADERS))
# A header or a cookie of this name, with a value of its own choice, keeps a client with the worker that answered it.
SESSION = b"potluck-session"
# Sessions that are remembered, and the longest value: some 200 bytes each.
SESSIONS_MAX, SESSION_BYTES_MAX = 20_000, 128


class Route(NamedTuple):
    """`root` is the part of the path that says which function it is."""

    app: str
    label: str
    root: str


class Answer(NamedTuple):
    """What the gateway says itself."""

    status: int
    text: str
    retry_after_s: int = 0

    @property
    def headers(self) -> Headers:
        plain = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(self.body)))
        return (*plain, (b"retry-after", b"%d" % self.retry_after_s)) if self.retry_after_s else plain

    @property
    def body(self) -> bytes:
        return f"{self.text}\n".encode()


# RFC 6455: a reason fits into a frame with the code; 1011 is an unexpected condition. IANA's registry adds 1012, a
# restart of the service.
REASON_MAX, INTERNAL_ERROR, NORMAL, RESTART = 30, 1011, 1000, 1012

NO_HOST = Answer(421, "This gateway does not answer under that name: add it to `gateway_hosts`.")
NOT_FOUND = Answer(404, "Nothing answers here. `potluck deploy` and `potluck serve` print the URLs.")
NO_TOKEN = Answer(401, "This needs the headers Potluck-Key and Potluck-Secret: see `potluck token`.")
TOO_MANY_HEADERS = Answer(431, f"The headers are larger than {HEADER_BYTES_MAX >> 10} KiB.")
TOO_LARGE = Answer(413, f"The body is larger than {BODY_BYTES_MAX >> 30} GiB.")
TOO_SLOW = Answer(408, "The request did not arrive in time.")
OVERLOADED = Answer(503, "The gateway answers as many requests as it can.", RETRY_SOON_S)
BUSY = Answer(429, "As many requests as there may be wait for this function.", RETRY_SOON_S)
NO_WORKER = Answer(503, "No machine has begun to answer in time.", RETRY_LATER_S)
RAISED = Answer(500, "The application raised an exception; `potluck app logs` shows it.")
NOT_GRANTED = Answer(403, "The app's owner lets this gateway not answer for it: see the setting `gateways`.")
ODD_REQUEST = Answer(400, "This is no request that an application could be given.")
OWNER_AWAY = Answer(503, "The node of the app's owner cannot be reached.", RETRY_LATER_S)
STOPPED = Answer(503, "The application was stopped.", RETRY_LATER_S)


def route(path: str) -> Route | None:
    """`/APP/LABEL` and all below; None for another path."""
    found = re.fullmatch(r"(/([A-Za-z0-9_.-]{1,64})/([a-z0-9-]{1,63}))(/.*)?", path, re.DOTALL)
    return Route(found[2], found[3], found[1]) if found else None


def path_of(target: bytes) -> str:
    """The path of a request's target, decoded."""
    return unquote(target.partition(b"?")[0].decode("latin-1"))


def names_us(headers: Headers, hosts: Iterable[str]) -> bool:
    """Whether the request is for one of our names: a page elsewhere can have its own name lead to this machine (DNS
    rebinding), but not send another one in its place."""
    given = [value.decode("latin-1").lower() for name, value in headers if name.lower() in (b"host", b":authority")]
    names = {re.sub(r":\d*$", "", value) for value in given}
    return bool(names) and names <= set(hosts)


def header_bytes(headers: Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def proof(headers: Headers) -> tuple[str, str]:
    """The key and the secret that a client gave, or ""."""
    return _first(headers, KEY_HEADERS), _first(headers, SECRET_HEADERS)


def _first(headers: Headers, names: tuple[bytes, ...]) -> str:
    return next((value.decode("latin-1") for name, value in headers if name.lower() in names), "")


def odd(request: HttpRequest | SocketRequest) -> Answer | None:
    """What is wrong with a request that another node's gateway has read."""
    method = request.method if isinstance(request, HttpRequest) else "GET"
    try:
        _checked(request.headers)
    except Broken:
        return ODD_REQUEST
    lines = (request.raw_path, request.query, request.scheme.encode(), request.http_version.encode())
    sound = _NAME.fullmatch(method.encode()) and not any(re.search(rb"[\s\0]", line) for line in lines)
    return None if sound else ODD_REQUEST


def passed_on(headers: Headers) -> Headers:
    """What workers see."""
    return tuple((name.lower(), value) for name, value in headers if name.lower() not in _OURS)


def session(headers: Headers) -> bytes:
    """What the client calls its session, or nothing."""
    fields = {name.lower(): value for name, value in headers}
    cookies = [pair.strip().partition(b"=") for name, value in headers if name.lower() == b"cookie"
               for pair in value.split(b";")]  # fmt: skip
    found = fields.get(SESSION) or next((value for name, _, value in cookies if name == SESSION), b"")
    return found if len(found) <= SESSION_BYTES_MAX else b""


class Sessions:
    """Which worker answered a session of a function last."""

    def __init__(self) -> None:
        self._workers: OrderedDict[tuple[str, bytes], str] = OrderedDict()

    def worker(self, function: str, name: bytes) -> str:
        """ "" when none has, or nobody asks for one."""
        return self._workers.get((function, name), "") if name else ""

    def note(self, function: str, name: bytes, worker: str) -> None:
        if name:
            self._workers[function, name] = worker
            self._workers.move_to_end((function, name))
            if len(self._workers) > SESSIONS_MAX:
                self._workers.popitem(last=False)


def body_bytes(headers: Headers) -> int | None:
    """How long the body says that it is: 0 without any, None where only its end will tell."""
    fields = {name.lower(): value for name, value in headers}
    if b"transfer-encoding" in fields:
        return None
    length = fields.get(b"content-length", b"0")
    return int(length) if length.isdigit() else None


def failed(failure: Failure) -> Answer:
    """What a client is told of an input that failed: nothing of the inside, which `potluck app logs` shows."""
    if failure.kind == "timeout":
        return Answer(504, "The application did not answer within its timeout.")
    if failure.kind == "cancelled":
        return STOPPED
    if failure.kind in ("no-peer", "refused", "connection", "sandbox"):
        return Answer(503, "No machine can answer now.", RETRY_LATER_S)
    return Answer(502, "The application could not answer; `potluck app logs` shows why.")


@dataclass
class Doors:
    """Counts requests, of all and of each function."""

    total: int = 0
    functions: Counter[str] = field(default_factory=Counter)

    def enter(self, function: str) -> Answer | None:
        """None when it may; then `leave` follows."""
        if self.total >= REQUESTS_MAX:
            return OVERLOADED
        if self.functions[function] >= FUNCTION_REQUESTS_MAX:
            return BUSY
        self.total += 1
        self.functions[function] += 1
        return None

    def leave(self, function: str) -> None:
        self.total -= 1
        self.functions[function] -= 1
        if not self.functions[function]:
            del self.functions[function]


class Broken(Exception):  # noqa: N818 - an event of the protocol
    """The worker says what makes no sense now: what follows of its answer cannot be trusted."""


@dataclass
class Reply:
    """What a worker answers, held to the order that ASGI demands, whatever it sends. `socket` for a WebSocket.

    start ─head─▶ body ─last piece─▶ over        start ─accepted─▶ open ─closed─▶ over
    """

    socket: bool = False
    state: str = "start"

    @property
    def begun(self) -> bool:
        """Whether the client was told anything."""
        return self.state != "start"

    @property
    def over(self) -> bool:
        return self.state == "over"

    def take(self, item: Message) -> Iterator[dict[str, object]]:
        """ASGI messages for the client. Raises `Broken`."""
        if isinstance(item, ResponseHead) and self.state == "start":
            yield from self._head(item)
        elif isinstance(item, BodyPiece) and self.state == "body":
            yield self._body(item.data, item.more)
        elif isinstance(item, SocketAccepted) and self.socket and self.state == "start":
            self.state = "open"
            yield {"type": "websocket.accept", "subprotocol": item.subprotocol, "headers": _checked(item.headers)}
        elif isinstance(item, SocketText) and self.state == "open":
            yield {"type": "websocket.send", "text": item.text}
        elif isinstance(item, SocketBytes) and self.state == "open":
            yield {"type": "websocket.send", "bytes": item.data}
        elif isinstance(item, SocketClosed) and self.state in ("start", "open") and self.socket:
            self.state = "over"
            yield {"type": "websocket.close", "code": close_code(item.code), "reason": item.reason[:REASON_MAX]}
        else:
            raise Broken(f"{type(item).__name__} came when the answer was at {self.state!r}")

    def answer(self, answer: Answer, code: int = INTERNAL_ERROR) -> Iterator[dict[str, object]]:
        """Say it instead of the worker, if nothing was said yet."""
        if self.state == "start":
            yield from self._head(ResponseHead(answer.status, answer.headers, answer.body))
        elif self.state == "open":
            self.state = "over"
            yield {"type": "websocket.close", "code": code, "reason": ""}

    def _head(self, head: ResponseHead) -> Iterator[dict[str, object]]:
        if not 200 <= head.status <= 599:
            raise Broken(f"{head.status} is no status of a response")
        yield {"type": f"{self._prefix}.start", "status": head.status, "headers": _checked(head.headers)}
        self.state = "body"
        yield self._body(head.body, head.more)

    def _body(self, data: bytes, more: bool) -> dict[str, object]:
        if not more:
            self.state = "over"
        return {"type": f"{self._prefix}.body", "body": data, "more_body": more}

    @property
    def _prefix(self) -> str:
        return "websocket.http.response" if self.socket else "http.response"


# What concerns the connection is the gateway's, as RFC 9110, section 7.6.1, has it.
_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def close_code(code: int) -> int:
    """One that may be sent: others stand for what happened without any."""
    return code if 3000 <= code <= 4999 or code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011) else NORMAL


def _checked(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Raises `Broken` for what would let a worker write another response into the client's connection."""
    if header_bytes(headers) > HEADER_BYTES_MAX:
        raise Broken("the headers of the response are too large")
    for name, value in headers:
        if not _NAME.fullmatch(name) or re.search(rb"[\r\n\0]", value):
            raise Broken(f"{name!r:.60} is no header")
    checked = [(name.lower(), value.strip()) for name, value in headers if name.lower() not in _HOP]
    lengths = [value for name, value in checked if name == b"content-length"]
    if len(lengths) > 1 or not all(value.isdigit() and len(value) < 19 for value in lengths):
        raise Broken(f"{lengths!r:.60} is no length of a body")
    return checked
