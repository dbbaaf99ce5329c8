"""Potluck: everyone brings a GPU. A plain Python function runs on a peer-to-peer mesh as if it were one cloud."""

from potluck.version import __version__  # isort: skip
from potluck.app import App, LocalEntrypoint
from potluck.calls import FunctionCall
from potluck.cls import enter, exit, method
from potluck.dicts import Dict
from potluck.errors import Error
from potluck.functions import Function
from potluck.image import Image
from potluck.parameters import parameter
from potluck.place import current_function_call_id, current_input_id, enable_output, is_local, preempted
from potluck.queues import Queue
from potluck.retries import Retries
from potluck.sandbox import Probe, Sandbox
from potluck.schedule import Cron, Period
from potluck.secret import Secret
from potluck.server import Server
from potluck.sharing import batched, concurrent
from potluck.tunnels import Tunnel, forward
from potluck.variants import Cls
from potluck.verify import Verify
from potluck.volume import Volume
from potluck.web import asgi_app, fastapi_endpoint, web_server, wsgi_app

__all__ = [
    "App",
    "Cls",
    "Cron",
    "Dict",
    "Error",
    "Function",
    "FunctionCall",
    "Image",
    "LocalEntrypoint",
    "Period",
    "Probe",
    "Queue",
    "Retries",
    "Sandbox",
    "Secret",
    "Server",
    "Tunnel",
    "Verify",
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
    "preempted",
    "web_server",
    "wsgi_app",
]
