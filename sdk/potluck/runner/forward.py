"""From 127.0.0.1 to the node's proxy: programs know proxies by host and port, and the sandbox has but a Unix socket.

A process of its own, forked before the user's imports, so that the zygote stays single-threaded. It decides nothing:
the node does not trust what comes through the socket. Whoever ends it loses his own network, nothing else.
"""

from __future__ import annotations

import _socket as socket
import os
import select

# As in `potluck_node.sandbox.network` and `bwrap`; a test compares them. The port is that of Squid.
SOCKET = "/run/potluck/network/socket"
PORT = 3128

# Pairs at once, two descriptors each of the sandbox's 1024; more wait. The node refuses earlier, with a reason.
PAIRS_MAX = 256
READ_BYTES = 64 << 10
# Standard streams and the zygote's socket, which the forwarder gives up.
_INHERITED = 4


def start() -> None:
    """Fork the forwarder where there is a network; it listens before this returns."""
    if not os.path.exists(SOCKET):
        return
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", PORT))
    listener.listen(PAIRS_MAX)
    if os.fork() == 0:
        try:
            os.setsid()
            os.closerange(0, _INHERITED)
            _serve(listener)
        finally:
            os._exit(1)
    listener.close()


class _Half:
    """Bytes on their way from `source` to `sink`: read only when none wait."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source, self._sink = source, sink
        self._waiting = b""
        self.ended = False

    def interest(self) -> tuple[int, int] | None:
        """What to wait for: a descriptor and the event; None when nothing more will come."""
        if self._waiting:
            return self._sink.fileno(), select.POLLOUT
        return None if self.ended else (self._source.fileno(), select.POLLIN)

    def step(self) -> None:
        """Move what can be moved without waiting. Raises `OSError` when either side is gone."""
        try:
            if not self._waiting:
                self._waiting = self._source.recv(READ_BYTES)
                self.ended = not self._waiting
            self._waiting = self._waiting[self._sink.send(self._waiting) :] if self._waiting else b""
            if self.ended:
                self._sink.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return


class _Pair:
    """One client and its connection to the node. Raises `OSError` when the node takes none."""

    def __init__(self, descriptor: int) -> None:
        self._client = socket.socket(fileno=descriptor)
        self._node = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.halves = (_Half(self._client, self._node), _Half(self._node, self._client))
        for each in (self._client, self._node):
            each.setblocking(False)
        try:
            self._node.connect(SOCKET)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._client.close()
        self._node.close()


def _serve(listener: socket.socket) -> None:
    pairs: set[_Pair] = set()
    while True:
        poll = select.poll()
        waits: dict[int, int] = {}
        if len(pairs) < PAIRS_MAX:
            waits[listener.fileno()] = select.POLLIN
        for pair in pairs:
            for half in pair.halves:
                if (interest := half.interest()) is not None:
                    waits[interest[0]] = waits.get(interest[0], 0) | interest[1]
        for descriptor, events in waits.items():
            poll.register(descriptor, events)
        ready = {descriptor for descriptor, _ in poll.poll()}
        pairs = {pair for pair in pairs if _goes_on(pair, ready)}
        if listener.fileno() in ready:
            _accept(listener, pairs)


def _goes_on(pair: _Pair, ready: set[int]) -> bool:
    """Serve `pair`; False when it is over."""
    try:
        for half in pair.halves:
            interest = half.interest()
            if interest is not None and interest[0] in ready:
                half.step()
        if any(half.interest() is not None for half in pair.halves):
            return True
    except OSError:
        pass
    pair.close()
    return False


def _accept(listener: socket.socket, pairs: set[_Pair]) -> None:
    try:
        # What socket.accept is made of.
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        pairs.add(_Pair(descriptor))
    except OSError:
        return  # the client is gone again, or the node is; the client sees it closed
