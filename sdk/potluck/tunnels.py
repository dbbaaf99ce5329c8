"""`forward`: a port in a worker's sandbox, reached at a port of the machine of whoever called. Names are Modal's."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from potluck.asking import Steps, drive
from potluck.errors import Error, InvalidError
from potluck.place import is_local

if TYPE_CHECKING:
    from potluck.wire.tunnels import Connected, Pulled, TunnelOpened

# A program that does not take a connection on its own machine for so long is stuck, seconds.
CONNECT_TIMEOUT_S = 10.0
# How long a tunnel that is closed waits for connections to end: for what is on its way from those that the program has
# closed. Others are cut, seconds.
DRAIN_S = 2.0


class Tunnel(NamedTuple):
    """Where a forwarded port is reached: at an address of the caller's machine (its node's setting `tunnels`)."""

    host: str
    port: int
    unencrypted_host: str = ""
    unencrypted_port: int = 0

    @property
    def url(self) -> str:
        """For a browser. There is no TLS between it and the caller's machine, on which it usually runs; what leaves
        that machine is encrypted."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def tcp_socket(self) -> tuple[str, int]:
        """Host and port. Raises `InvalidError` unless it was asked for with `unencrypted=True`."""
        if not self.unencrypted_port:
            raise InvalidError("This tunnel carries no plain TCP.", fix="Ask for it: forward(port, unencrypted=True).")
        return self.unencrypted_host, self.unencrypted_port

    @property
    def tls_socket(self) -> tuple[str, int]:
        """Host and port, as of `url`."""
        return self.host, self.port


class forward:  # noqa: N801 - the name is Modal's
    """`with potluck.forward(8000) as tunnel: …` in a function lets `tunnel.url` lead to the port 8000 of its sandbox;
    `async with` does so, too.

    Raises `InvalidError` outside of functions, and `RefusedError` where the caller's node does not trust the peer.
    `h2_enabled` changes nothing: bytes are passed on as they are.
    """

    def __init__(self, port: int, *, unencrypted: bool = False, h2_enabled: bool = False) -> None:
        if is_local():
            raise InvalidError("forward() is for functions, in their sandbox.", fix="Here, the port is there already.")
        self._port, self._plain = port, unencrypted
        self._carrier: Carrier | None = None

    def __enter__(self) -> Tunnel:
        self._carrier = Carrier(self._port)
        host, port = self._carrier.begin()
        return Tunnel(host, port, host, port) if self._plain else Tunnel(host, port)

    def __exit__(self, *_: object) -> None:
        if self._carrier:
            self._carrier.end()

    async def __aenter__(self) -> Tunnel:
        import asyncio

        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        await asyncio.to_thread(self.__exit__)


class Carrier:
    """Carries connections to a port of this sandbox until it is ended, in threads of its own."""

    def __init__(self, port: int) -> None:
        self._port, self._tunnel = port, 0
        self.carried = 0
        self._carrying: set[threading.Thread] = set()

    def begin(self) -> tuple[str, int]:
        """Where it is reached: host and port."""
        from potluck.wire.tunnels import OpenTunnel

        opened: TunnelOpened = drive(_once(OpenTunnel(self._port)))
        self._tunnel = opened.tunnel
        threading.Thread(target=self._accept, name="tunnel", daemon=True).start()
        return opened.host, opened.port

    def end(self) -> None:
        """Close it with all connections, once what the program has written to those that it closed is on its way."""
        from time import monotonic

        from potluck.wire.tunnels import CloseTunnel

        deadline = monotonic() + DRAIN_S
        for thread in list(self._carrying):
            thread.join(max(0.0, deadline - monotonic()))
        try:
            drive(_once(CloseTunnel(self._tunnel)))
        except Error:
            # Closed already: the lease ended.
            return

    def _accept(self) -> None:
        from potluck.wire.tunnels import CONNECTIONS_MAX, NextConnection

        places = threading.Semaphore(CONNECTIONS_MAX)
        try:
            while True:
                places.acquire()
                came: Connected = drive(_once(NextConnection(self._tunnel)))
                self.carried += 1
                thread = threading.Thread(target=self._carry, args=(came.connection, places), daemon=True)
                self._carrying.add(thread)
                thread.start()
        except Error:
            return

    def _carry(self, connection: int, places: threading.Semaphore) -> None:
        try:
            inside = socket.create_connection(("127.0.0.1", self._port), CONNECT_TIMEOUT_S)
        except OSError:
            self._hang_up(connection)
        else:
            with inside:
                inside.settimeout(None)
                back = threading.Thread(target=self._send_back, args=(inside, connection), daemon=True)
                back.start()
                self._pass_on(inside, connection)
                back.join()
            self._hang_up(connection)
        finally:
            self._carrying.discard(threading.current_thread())
            places.release()

    def _pass_on(self, inside: socket.socket, connection: int) -> None:
        """What comes from outside, to the program."""
        from potluck.wire.tunnels import Pull

        try:
            while True:
                piece: Pulled = drive(_once(Pull(self._tunnel, connection)))
                if not piece.data:
                    inside.shutdown(socket.SHUT_WR)
                    return
                inside.sendall(piece.data)
        except Error:
            # The tunnel ended: the program sees the connection end.
            inside.close()
        except OSError:
            return

    def _send_back(self, inside: socket.socket, connection: int) -> None:
        from potluck.wire.tunnels import PIECE_BYTES_MAX, Push

        try:
            data = b"more"
            while data:
                data = inside.recv(PIECE_BYTES_MAX)
                drive(_once(Push(self._tunnel, connection, data)))
        except (Error, OSError):
            self._hang_up(connection)

    def _hang_up(self, connection: int) -> None:
        from potluck.wire.tunnels import HangUp

        try:
            drive(_once(HangUp(self._tunnel, connection)))
        except Error:
            return


def _once(request: Any) -> Steps[Any]:
    return (yield request)
