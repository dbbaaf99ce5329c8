"""A web server on loopback, and a gateway that counts it as the public internet."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from potluck_node.sandbox.network import Gateway
from potluck_node.sandbox.network_policy import Policy, Target

# The names of this internet; all others do not exist.
ADDRESSES = {
    "files.example.org": ("127.0.0.1",),
    "rebound.example.org": ("8.8.8.8", "127.0.0.1"),
    "lan.example.org": ("192.168.1.1",),
    "cloud.example.org": ("169.254.169.254",),
    "mapped.example.org": ("::ffff:127.0.0.1",),
}


class Site(http.server.BaseHTTPRequestHandler):
    """Says what it was asked, the body included."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        seen = {name.lower(): value for name, value in self.headers.items()}
        said = f"{self.command} {self.path} host={seen.get('host')} connection={seen.get('connection')}".encode()
        said += b" odd" * any(name.startswith("proxy-") or name == "x-hop" for name in seen) + self.rfile.read(size)
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def site(handler: type[http.server.BaseHTTPRequestHandler] = Site) -> Iterator[int]:
    """The port of a running server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def resolve(target: Target) -> Sequence[str]:
    if target.host not in ADDRESSES:
        raise OSError("no such name")
    return ADDRESSES[target.host]


def gateway(port: int, say: Callable[[str], None] = lambda _: None, *names: str) -> Gateway:
    """The only public thing is 127.0.0.1 at `port`."""
    policy = Policy(names or ("*",), ("*.org", "*.com"), (("127.0.0.1", port),))
    return Gateway(policy, say, resolve)
