"""A WebSocket's client, over a plain socket."""

import socket

from tests.e2e.mesh import PATIENCE_S
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage


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


def converse(url, texts, binaries):
    """With an application that sends back what it gets, and closes when it is told "bye"."""
    channel = Socket(url)
    for text in texts:
        channel.send(TextMessage(data=text))
        assert channel.message() == text
    for _ in range(binaries):
        channel.send(BytesMessage(data=bytes(10_000)))
        assert channel.message() == bytes(10_000)
    channel.send(TextMessage(data="bye"))
    end = channel.next()
    assert isinstance(end, CloseConnection)
    assert (end.code, end.reason) == (4001, "as asked")
    channel.connection.close()
