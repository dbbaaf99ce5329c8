"""`Server`: a class whose `enter` method starts an HTTP server. Made by `@app.server()`, or found with `from_name`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from potluck.absent import Absent
from potluck.calls import WithAio
from potluck.errors import InvalidError
from potluck.sharing import INPUTS_MAX, concurrent
from potluck.web import Web, labelled, web_server

if TYPE_CHECKING:
    from potluck.functions import Function

# The method that requests go to. It does nothing: what listens was started by `enter`.
METHOD = "serve"

# Modal's parameters that mean nothing here, and why, unless they are left at these defaults.
_REFUSED: dict[str, tuple[object, str]] = {
    "exit_grace_period": (0, "workers end when what they answer has ended"),
    "h2_enabled": (False, "workers and clients are spoken to by HTTP/1.1"),
    "name": (None, "a server goes by the name of its class"),
    "scaleup_window": (None, "workers are started as soon as they pay for it"),
}


class Server(Absent):
    """Answers requests; it has no methods to call."""

    def __init__(self, function: Function[..., Any], cls: type | None = None) -> None:
        self._function, self._cls = function, cls
        self.get_url = WithAio(self._get_url)
        self.hydrate = WithAio(self._hydrate)
        self.update_autoscaler = function.update_autoscaler

    @staticmethod
    def from_name(app_name: str, name: str, *, environment_name: str | None = None) -> Server:
        """The server of an app that was deployed on this machine. Raises `NotFoundError` when it is used and there is
        none. `environment_name` is passed over: there is one environment, the local node."""
        from potluck.found import FoundFunction

        return Server(FoundFunction(app_name, f"{name}.{METHOD}"))

    def get_raw_f(self) -> type:
        """The plain class. Raises `InvalidError` where only its name is known."""
        if self._cls is None:
            raise InvalidError("The code of this server is not here, only on the node.")
        return self._cls

    def _get_url(self) -> str | None:
        """Where it answers, once its app is deployed, served or run; None where the gateway is turned off."""
        return self._function.get_web_url()

    def _hydrate(self) -> Server:
        """Look it up, or have its image built, now. Returns itself."""
        self._function.hydrate()
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidError("A server is no class to make objects of.", fix="Ask it by HTTP: server.get_url().")


def checked(**given: object) -> None:
    """Raises `InvalidError` for what a mesh cannot give."""
    for name, value in given.items():
        default, why = _REFUSED[name]
        if value != default:
            raise InvalidError(f"{name}={value!r:.100} is not possible.", why=why, fix=f"Leave {name} out.")


def prepare(cls: Any, port: int, startup_timeout: int, private: bool, most: int | None, target: int | None) -> type:
    """Give the class the method that requests go to. Raises `InvalidError`."""
    if not isinstance(cls, type):
        raise InvalidError("@app.server() decorates classes.", fix="Use @potluck.web_server() for functions.")
    if hasattr(cls, METHOD):
        raise InvalidError(f"{cls.__name__} has something named {METHOD}.", fix="Rename it.")

    def serve(self: object) -> None:
        """What `enter` started answers."""

    serve.__qualname__ = f"{cls.__qualname__}.{METHOD}"
    label = labelled(Web("server", ""), cls.__name__).label
    asked = web_server(port, startup_timeout=startup_timeout, label=label, requires_proxy_auth=private)
    setattr(cls, METHOD, asked(serve))
    return concurrent(max_inputs=most or INPUTS_MAX, target_inputs=target or None)(cls)
