"""Ports of this machine whose connections workers of its owner's apps answer."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from typing import NoReturn

import trio

from potluck.errors import InvalidError, NotFoundError, RefusedError
from potluck.wire import tunnels as messages
from potluck_node.state.work import Asker

log = logging.getLogger("potluck.tunnels")


@dataclass
class _Tunnel:
    listener: trio.SocketListener
    owner: str
    accepting: int = 0
    connections: dict[int, trio.SocketStream] = field(default_factory=dict)


class Tunnels:
    """Listens on `host`; "none" refuses all tunnels."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._open: dict[int, _Tunnel] = {}
        self._numbers = itertools.count(1)

    async def ask(self, request: messages.TunnelRequest, asker: Asker) -> messages.TunnelAnswer:
        """Raises `potluck.errors.Error`."""
        match request:
            case messages.OpenTunnel(port):
                return await self._begin(port, asker)
            case messages.NextConnection(tunnel):
                return await self._accept(tunnel, self._of(tunnel, asker))
            case messages.Pull(tunnel, connection):
                return await _pull(self._stream(tunnel, connection, asker))
            case messages.Push(tunnel, connection, data):
                await _push(self._stream(tunnel, connection, asker), data)
            case messages.HangUp(tunnel, connection):
                stream = self._of(tunnel, asker).connections.pop(connection, None)
                if stream:
                    await trio.aclose_forcefully(stream)
            case messages.CloseTunnel(tunnel):
                self._of(tunnel, asker)
                self._close(tunnel)
        return messages.Pulled()

    def left(self, asker: str) -> None:
        """Whoever had this name is gone."""
        for number in [number for number, tunnel in self._open.items() if tunnel.owner == asker]:
            self._close(number)

    async def _begin(self, port: int, asker: Asker) -> messages.TunnelOpened:
        self._check(port, asker)
        try:
            listener = (await trio.open_tcp_listeners(0, host=self._host))[0]
        except OSError as error:
            raise InvalidError(
                "There is no port for a tunnel.", why=str(error), fix="Mend the setting `tunnels` of the caller's node."
            ) from None
        number = next(self._numbers)
        self._open[number] = _Tunnel(listener, asker.name)
        host, ours = listener.socket.getsockname()[:2]
        log.info("%s:%d leads to port %d of %s", host, ours, port, asker.app or "a program")
        return messages.TunnelOpened(number, host, ours)

    def _check(self, port: int, asker: Asker) -> None:
        if self._host == "none":
            raise RefusedError("The caller's node has no tunnels.", fix="Give its setting `tunnels` an address.")
        if not 0 < port < 1 << 16:
            raise InvalidError(f"{port} is no port.", fix="Give one from 1 to 65535.")
        if asker.app and not asker.trusted:
            raise RefusedError(
                "A tunnel cannot be opened from here.",
                why="the peer that runs this function is not trusted by its caller's node",
                fix="Add it to the setting `trust` there.",
            )
        if sum(tunnel.owner == asker.name for tunnel in self._open.values()) >= messages.TUNNELS_MAX:
            raise RefusedError(f"{messages.TUNNELS_MAX} tunnels are open.", fix="Close some.")

    def _of(self, number: int, asker: Asker) -> _Tunnel:
        tunnel = self._open.get(number)
        if tunnel is None or tunnel.owner != asker.name:
            _say_closed()
        return tunnel

    def _stream(self, number: int, connection: int, asker: Asker) -> trio.SocketStream:
        return self._of(number, asker).connections.get(connection) or _say_closed()

    async def _accept(self, number: int, tunnel: _Tunnel) -> messages.Connected:
        if len(tunnel.connections) >= messages.CONNECTIONS_MAX:
            raise RefusedError(f"{messages.CONNECTIONS_MAX} connections of this tunnel are open.")
        try:
            stream = await tunnel.listener.accept()
        except trio.Cancelled:
            # Whoever waited is gone: nobody will answer.
            self._close(number)
            raise
        except trio.ClosedResourceError:
            _say_closed()
        connection = next(self._numbers)
        tunnel.connections[connection] = stream
        return messages.Connected(connection)

    def _close(self, number: int) -> None:
        tunnel = self._open.pop(number)
        tunnel.listener.socket.close()
        for stream in tunnel.connections.values():
            stream.socket.close()


async def _pull(stream: trio.SocketStream) -> messages.Pulled:
    try:
        return messages.Pulled(bytes(await stream.receive_some(messages.PIECE_BYTES_MAX)))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return messages.Pulled()


async def _push(stream: trio.SocketStream, data: bytes) -> None:
    try:
        if data:
            await stream.send_all(data)
        else:
            await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        _say_closed()


def _say_closed() -> NoReturn:
    raise NotFoundError("This connection, or its tunnel, is closed.")
