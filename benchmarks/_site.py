"""One small ASGI application, as uvicorn and Hypercorn serve it, and as a function."""

from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]


async def site(scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Callable[[Scope], Awaitable[None]]) -> None:
    """A hundred bytes, whatever is asked for."""
    if scope["type"] == "lifespan":
        raise NotImplementedError("there is nothing to start")
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 100})
