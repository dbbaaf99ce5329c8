"""A WebSocket's client, over a plain socket."""

import socket

from tests.e2e.mesh import PATIENCE_S
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Ping, Request


class Socket:
    """A WebSocket's client."""

    def __init__(self, url):
        host, _, path = url.removeprefix("http://").partition("/")
        self.connection = socket.create_connection(tuple(host.split(":")), PATIENCE_S)
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.events = iter(())
        self.send(Request(host=host, target=f"/{path}"))
        assert isinstance(self.next(), AcceptConnection)

    def send(self, event):
        self.connection.sendall(self.protocol.send(event))

    def next(self):
        """The next event, pings answered."""
        while True:
            for event in self.events:
                if not isinstance(event, Ping):
                    return event
                self.send(event.response())
            self.protocol.receive_data(self.connection.recv(65536) or None)
            self.events = self.protocol.events()

    def message(self):
        parts = [self.next()]
        while not parts[-1].message_finished:
            parts.append(self.next())
        return type(parts[0].data)().join(part.data for part in parts)
