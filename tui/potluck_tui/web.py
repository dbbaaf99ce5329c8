"""The terminal in a browser of this machine: `potluck tui --web`, by textual-serve, with a process for each window.

Whoever opens it can do all that the owner can, and every user and program of this machine can connect to loopback: so
everything is below a path that cannot be guessed. Nothing is fetched from elsewhere.
"""

from __future__ import annotations

import secrets
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

HOST = "127.0.0.1"
# 128 bits: as many as a session's key has elsewhere.
TOKEN_BYTES = 16
# Each open window is a process of 50 MiB.
WINDOWS_MAX = 8
# How long open windows may take to close when this ends.
CLOSING_S = 1.0
POLICY = "default-src 'self' 'unsafe-inline' data: blob:; connect-src 'self'; frame-ancestors 'none'"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Browser(Server):
    """Serves `command`, a Textual app, on a listening socket."""

    def __init__(self, command: Sequence[str], listening: socket.socket) -> None:
        port = listening.getsockname()[1]
        templates = Path(__file__).parent / "browser"
        # Not below a shell, so that it sees this process end (`served`).
        super().__init__(f"exec {shlex.join(command)}", HOST, port, title="Potluck", templates_path=templates)
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self._windows = 0

    @property
    def url(self) -> str:
        return f"{self.public_url}/{self.token}/"

    async def make(self) -> web.Application:
        """All routes below the token; anything else is not found."""
        outer = web.Application()
        inner = await self._make_app()
        inner.on_response_prepare.append(_harden)
        outer.add_subapp(f"/{self.token}", inner)
        return outer

    async def on_startup(self, app: web.Application) -> None:
        print(f"The terminal is at {self.url}", flush=True)  # noqa: T201
        print("Whoever has this address can do what you can here. Ctrl+C ends it.", flush=True)  # noqa: T201

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if self._windows >= WINDOWS_MAX:
            raise web.HTTPServiceUnavailable(text=f"{WINDOWS_MAX} windows are open: close one.")
        self._windows += 1
        try:
            return await super().handle_websocket(request)
        finally:
            self._windows -= 1


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def serve(demo: bool, port: int) -> None:
    """Until interrupted. `port` 0 is any free one. Raises `OSError` where it cannot listen."""
    with socket.create_server((HOST, port)) as listening:
        command = [sys.executable, "-m", "potluck_tui.served", *(["--demo"] if demo else [])]
        made = Browser(command, listening).make()
        web.run_app(made, sock=listening, print=None, access_log=None, shutdown_timeout=CLOSING_S)
