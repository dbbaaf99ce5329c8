"""Names of Modal 1.6 that Potluck does not have, and what is nearest. Imported with `potluck`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from potluck.errors import Error

_WEB = "web endpoints are not there yet: run a server of your own that calls functions"
_STORE = "it is not there yet: pass data as arguments and results"
_SERVER = "there is no server and no account: everything is on your own node"
_SANDBOX = "sandboxes without a function are not there yet: use `potluck shell`, or a function that runs a subprocess"
_DASHBOARD = "there is no website: use `potluck status` and `potluck app logs`"
_CLUSTER = 'functions on several machines that talk to each other are not there yet: one machine with gpu="…:8"'
_SCHEDULE = "schedules are not there yet: start the program by cron"
_PRIVATE = "put credentials into secrets= of a step, and use from_registry() or pip_install()"

ABSENT = {
    "Client": _SERVER,
    "CloudBucketMount": "read the bucket from the function: outbound_domain_allowlist= and secrets=",
    "Cluster": _CLUSTER,
    "Cron": _SCHEDULE,
    "Dict": _STORE,
    "Environment": _SERVER,
    "FilePatternMatcher": "ignore= takes a list of patterns, or a function of a path",
    "NetworkFileSystem": _STORE,
    "Period": _SCHEDULE,
    "Probe": _SANDBOX,
    "Proxy": "traffic leaves from the machine that runs the function",
    "Queue": _STORE,
    "Sandbox": _SANDBOX,
    "SandboxSnapshot": _SANDBOX,
    "SchedulerPlacement": "use region= and labels= of @app.function()",
    "Server": _WEB,
    "Tunnel": "functions cannot be connected to: they call out through a proxy",
    "Volume": _STORE + ", or add files to the image",
    "Workspace": _SERVER,
    "asgi_app": _WEB,
    "billing": "nothing is billed: see `potluck ledger` for who gave what",
    "clustered": _CLUSTER,
    "current_function_call_id": "workers are not told the numbers of calls",
    "current_input_id": "workers are not told the numbers of inputs",
    "experimental": "there is nothing experimental",
    "fastapi_endpoint": _WEB,
    "forward": "functions cannot be connected to: they call out through a proxy",
    "interact": "use `potluck container exec`, or `potluck shell FILE.py::FUNCTION`",
    "sessioned": _WEB,
    "web_endpoint": _WEB,
    "web_server": _WEB,
    "wsgi_app": _WEB,
    "App.app_id": "an app is known by its name",
    "App.description": "an app is known by its name",
    "App.get_dashboard_url": _DASHBOARD,
    "App.get_tags": "apps have no tags",
    "App.info": _DASHBOARD,
    "App.logs": "use `potluck app logs`",
    "App.lookup": "it serves Modal's sandboxes: find functions with Function.from_name() and Cls.from_name()",
    "App.registered_web_endpoints": _WEB,
    "App.sandboxes": _SANDBOX,
    "App.server": _WEB,
    "App.set_tags": "apps have no tags",
    "App.stats": "use `potluck status`",
    "App.stop": "use `potluck app stop`",
    "Cls.client": _SERVER,
    "Cls.get_dashboard_url": _DASHBOARD,
    "Cls.object_id": "a class is known by its app and name",
    "Function.autoscaler": "use Function.update_autoscaler() and Function.get_current_stats()",
    "Function.client": _SERVER,
    "Function.experimental_spawn_map": "use Function.spawn_map()",
    "Function.from_id": "a function is known by its app and name: use Function.from_name()",
    "Function.get_dashboard_url": _DASHBOARD,
    "Function.get_web_url": _WEB,
    "Function.info": _DASHBOARD,
    "Function.logs": "use `potluck app logs`",
    "Function.metrics": "use `potluck status`",
    "Function.object_id": "a function is known by its app and name",
    "Function.stats": "use Function.get_current_stats()",
    "Function.web_url": _WEB,
    "FunctionCall.client": _SERVER,
    "FunctionCall.get_call_graph": "functions cannot call each other from within a sandbox, so there is no graph",
    "FunctionCall.get_dashboard_url": _DASHBOARD,
    "FunctionCall.hydrate": "it is known as soon as it is made",
    "FunctionCall.logs": "use `potluck app logs`",
    "Image.build": "images are built when they are needed, or by `potluck image`",
    "Image.client": _SERVER,
    "Image.from_aws_ecr": _PRIVATE,
    "Image.from_gcp_artifact_registry": _PRIVATE,
    "Image.from_id": "use `potluck image pull`, or describe the image in code",
    "Image.from_name": "describe the image in code: it is built once",
    "Image.get_dashboard_url": _DASHBOARD,
    "Image.hydrate": "images are built when they are needed",
    "Image.logs": "what a step printed last is in its ImageBuildError",
    "Image.object_id": "`potluck image list` shows the ids",
    "Image.publish": "use `potluck image push`",
    "Secret.client": _SERVER,
    "Secret.get_dashboard_url": _DASHBOARD,
    "Secret.hydrate": "secrets are read when they are needed",
    "Secret.info": _SERVER,
    "Secret.name": "secrets have no names here",
    "Secret.object_id": "secrets have no names here",
    "Secret.objects": "secrets have no names here",
    "Secret.update": "make another one with Secret.from_dict()",
}


class AbsentError(Error, AttributeError):
    """Modal has this name and Potluck does not; says what is nearest."""

    kind = "absent"


def absent(name: str) -> AbsentError:
    """The error for a name in `ABSENT`."""
    return AbsentError(f"Potluck has no {name}, which Modal has.", fix=ABSENT[name])


class Absent:
    """Base of classes whose Modal twin has more names: using one says what is nearest."""

    if not TYPE_CHECKING:  # to whom it would mean that there is any attribute

        def __getattr__(self, name: str) -> Any:
            for cls in type(self).__mro__:
                if f"{cls.__name__}.{name}" in ABSENT:
                    raise absent(f"{cls.__name__}.{name}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
