"""Web endpoints of each kind that needs nothing but Python. `potluck serve examples/web.py` prints their URLs."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import potluck

app = potluck.App("web")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


@app.function()
@potluck.concurrent(max_inputs=100)
@potluck.asgi_app()
def stream() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Server-sent events, one every half a second. FastAPI, Starlette and Django applications are returned likewise."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": b""})

    return application


@app.function()
@potluck.wsgi_app()
def hello() -> Callable[..., Iterable[bytes]]:
    """Flask applications are returned likewise."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"Hello from {environ['PATH_INFO'] or '/'}\n".encode()]

    return application


@app.function()
@potluck.concurrent(max_inputs=100)
@potluck.web_server(8000, startup_timeout=30)
def files() -> None:
    """Any server: this one shows the files in its sandbox."""
    subprocess.Popen([sys.executable, "-m", "http.server", "8000", "--bind", "127.0.0.1"])
