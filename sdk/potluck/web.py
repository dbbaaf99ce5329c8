"""Functions that answer web requests: `@potluck.fastapi_endpoint()` and its kin. Imported with `potluck`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from potluck.errors import InvalidError
from potluck.sharing import is_method

F = TypeVar("F", bound=Callable[..., Any])

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
PORT_MAX = 65_535
# As DNS has it for one label, which is what Modal makes of it.
LABEL_MAX = 63
# As a function's own: a model server may load for long.
STARTUP_S_MAX = 24 * 3600

# What the decorators leave on a function.
_MARK = "_potluck_web"


class Web(NamedTuple):
    """As `wire.common.Web`, whose module is too slow for `import potluck`; `startup_timeout` is in seconds."""

    kind: str
    label: str
    method: str = "GET"
    docs: bool = False
    private: bool = False
    port: int = 0
    startup_timeout: float = 0.0
    attribute: str = ""


def fastapi_endpoint(
    *,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """Let a function answer HTTP requests, its parameters taken from them as FastAPI does, which must be in the image.

    It stands below `@app.function()`, or makes a method of an `@app.cls()` class answer, as its kin do. `label` is the
    last part of its URL, by default its name; with `docs` there are pages about it at `/docs`. Raises `InvalidError`.
    """
    if method.upper() not in METHODS:
        raise InvalidError(f"{method!r} is no method of HTTP.", fix=f"Give one of {', '.join(METHODS)}.")
    _check_domains(custom_domains)
    return _decorator(Web("fastapi", label or "", method.upper(), docs, requires_proxy_auth), "fastapi_endpoint")


def asgi_app(
    *, label: str | None = None, custom_domains: Iterable[str] | None = None, requires_proxy_auth: bool = False
) -> Callable[[F], F]:
    """Serve the ASGI application that a function without parameters returns, made once in each worker.

    Raises `InvalidError`.
    """
    _check_domains(custom_domains)
    return _decorator(Web("asgi", label or "", private=requires_proxy_auth), "asgi_app")


def wsgi_app(
    *, label: str | None = None, custom_domains: Iterable[str] | None = None, requires_proxy_auth: bool = False
) -> Callable[[F], F]:
    """Serve the WSGI application that a function without parameters returns, made once in each worker; each request
    gets a thread. Raises `InvalidError`."""
    _check_domains(custom_domains)
    return _decorator(Web("wsgi", label or "", private=requires_proxy_auth), "wsgi_app")


def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """Pass requests on to the server that a function without parameters starts, such as by `subprocess.Popen`.

    It must listen on 127.0.0.1 or all addresses, on `port`, within `startup_timeout` seconds. Raises `InvalidError`.
    """
    if not isinstance(port, int) or not 1 <= port <= PORT_MAX:
        raise InvalidError(f"port={port!r} is no port.", fix=f"Give a number from 1 to {PORT_MAX}.")
    if not 0 < startup_timeout <= STARTUP_S_MAX:
        raise InvalidError(
            f"startup_timeout={startup_timeout!r} is out of range.", fix=f"Give seconds, at most {STARTUP_S_MAX}."
        )
    _check_domains(custom_domains)
    web = Web("server", label or "", private=requires_proxy_auth, port=port, startup_timeout=startup_timeout)
    return _decorator(web, "web_server")


def web_of(raw: object) -> Web | None:
    """What the decorators asked for; None for a function that is called."""
    marked: Web | None = getattr(raw, "__dict__", {}).get(_MARK)
    return marked


def labelled(web: Web, name: str) -> Web:
    """With a label, if it is only made of the function's name."""
    return web._replace(label=web.label or re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:LABEL_MAX] or "app")


def _check_domains(domains: Iterable[str] | None) -> None:
    if domains:
        raise InvalidError("custom_domains= is not possible.", why="the gateway is the node's own, at its address")


def _decorator(web: Web, name: str) -> Callable[[F], F]:
    if web.label and not re.fullmatch(rf"[a-z0-9](?:[a-z0-9-]{{0,{LABEL_MAX - 1}}})", web.label):
        raise InvalidError(
            f"{web.label!r} is no label.",
            fix=f"Use up to {LABEL_MAX} small letters, digits and '-', as in a host name.",
        )

    def decorate(raw: F) -> F:
        _check(raw, web, name)
        setattr(raw, _MARK, web)
        return raw

    return decorate


def _check(raw: Any, web: Web, name: str) -> None:
    if not callable(raw) or hasattr(raw, "get_raw_f") or isinstance(raw, type):
        raise InvalidError(
            f"@potluck.{name}() decorates plain functions and methods.",
            fix="Write it with parentheses, directly above the function and below @app.function().",
        )
    if web_of(raw):
        raise InvalidError(f"{raw.__name__} answers requests already.", fix="Decorate it once.")
    code = getattr(raw, "__code__", None)
    if web.kind != "fastapi" and code is not None and code.co_argcount - len(raw.__defaults__ or ()) > is_method(raw):
        raise InvalidError(f"{raw.__name__} takes arguments, which nobody gives it.", fix="Leave them out.")
