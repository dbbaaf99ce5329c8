"""Modal's names, for programs written for it: `import potluck.modal as modal`, or `potluck run --as modal FILE.py`, by
which `import modal` gives this module, here and in the sandbox.

Using a name that Potluck lacks raises `AbsentError` at that line, and says what is nearest.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import NoReturn

from potluck import (
    App,
    Cls,
    Cron,
    Dict,
    Error,
    Function,
    FunctionCall,
    Image,
    Period,
    Probe,
    Queue,
    Retries,
    Sandbox,
    Secret,
    Server,
    Tunnel,
    Volume,
    __version__,
    app,
    asgi_app,
    batched,
    calls,
    concurrent,
    current_function_call_id,
    current_input_id,
    dicts,
    enable_output,
    enter,
    exit,
    fastapi_endpoint,
    forward,
    functions,
    image,
    is_local,
    method,
    parameter,
    queues,
    retries,
    schedule,
    secret,
    variants,
    volume,
    web_server,
    wsgi_app,
)
from potluck import errors as exception
from potluck.absent import ABSENT, absent

__all__ = [
    "App",
    "Cls",
    "Cron",
    "Dict",
    "Error",
    "Function",
    "FunctionCall",
    "Image",
    "Period",
    "Probe",
    "Queue",
    "Retries",
    "Sandbox",
    "Secret",
    "Server",
    "Tunnel",
    "Volume",
    "__version__",
    "asgi_app",
    "batched",
    "concurrent",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "enter",
    "exit",
    "fastapi_endpoint",
    "forward",
    "is_local",
    "method",
    "parameter",
    "web_server",
    "wsgi_app",
]

# Modules of Modal whose names are those of one of ours.
_MODULES: dict[str, ModuleType] = {
    "app": app,
    "call_graph": calls,
    "cls": variants,
    "dict": dicts,
    "exception": exception,
    "functions": functions,
    "image": image,
    "queue": queues,
    "retries": retries,
    "schedule": schedule,
    "secret": secret,
    "volume": volume,
}


def take_name() -> None:
    """From now on `import modal` gives this module, in this process. Raises `InvalidError` when there is another."""
    here = sys.modules[__name__]
    other = sys.modules.get("modal", here)
    if other is not here and getattr(other, "take_name", None) is not take_name:
        raise exception.InvalidError(
            "Modal itself was imported before.", fix="Start the program by `potluck run --as modal`."
        )
    sys.modules["modal"] = here
    sys.modules.update({f"modal.{name}": module for name, module in _MODULES.items()})


def __getattr__(name: str) -> NoReturn:
    if name in ABSENT:
        # No AttributeError, of which `from modal import …` would make an ImportError that does not say why.
        error = absent(name)
        raise exception.InvalidError(error.what, fix=error.fix)
    raise AttributeError(f"module 'modal' has no attribute {name!r}")
