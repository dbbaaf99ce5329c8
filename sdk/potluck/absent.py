"""Names of Modal 1.6 that Potluck does not have, and what is nearest. Imported with `potluck`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from potluck.errors import Error

_WEB = "use @potluck.fastapi_endpoint(), asgi_app(), wsgi_app() or web_server() below @app.function()"
_SERVER = "there is no server and no account: everything is on your own node"
_SNAPSHOT = "use Sandbox.snapshot_filesystem(), which gives an image"
_DASHBOARD = "there is no website: use `potluck status` and `potluck app logs`"
_CLUSTER = 'functions on several machines that talk to each other are not there yet: one machine with gpu="…:8"'
_PRIVATE = "log in with `docker login`, and use from_registry()"

ABSENT = {
    "Client": _SERVER,
    "CloudBucketMount": "read the bucket from the function: outbound_domain_allowlist= and secrets=",
    "Cluster": _CLUSTER,
    "Environment": _SERVER,
    "FilePatternMatcher": "ignore= takes a list of patterns, or a function of a path",
    "NetworkFileSystem": "use Volume",
    "Proxy": "traffic leaves from the machine that runs the function",
    "SandboxSnapshot": _SNAPSHOT,
    "SchedulerPlacement": "use region= and labels= of @app.function()",
    "Workspace": _SERVER,
    "billing": "nothing is billed: see `potluck ledger` for who gave what",
    "clustered": _CLUSTER,
    "experimental": "there is nothing experimental",
    "interact": "use `potluck container exec`, or `potluck shell FILE.py::FUNCTION`",
    "sessioned": "a client that sends a header or cookie potluck-session stays with its worker",
    "types": "the one that carries over is potluck.functions.FunctionStats",
    "web_endpoint": _WEB,
    "App.app_id": "an app is known by its name",
    "App.description": "an app is known by its name",
    "App.get_dashboard_url": _DASHBOARD,
    "App.get_tags": "apps have no tags",
    "App.info": _DASHBOARD,
    "App.logs": "use `potluck app logs`",
    "App.registered_web_endpoints": _WEB,
    "App.sandboxes": "use Sandbox.list(app_id=NAME)",
    "App.set_tags": "apps have no tags",
    "App.stats": "use `potluck status`",
    "App.stop": "use `potluck app stop`",
    "Cls.client": _SERVER,
    "Cls.get_dashboard_url": _DASHBOARD,
    "Cls.object_id": "a class is known by its app and name",
    "Dict.client": _SERVER,
    "Dict.get_dashboard_url": _DASHBOARD,
    "Function.autoscaler": "use Function.update_autoscaler() and Function.get_current_stats()",
    "Function.client": _SERVER,
    "Function.experimental_spawn_map": "use Function.spawn_map()",
    "Function.from_id": "a function is known by its app and name: use Function.from_name()",
    "Function.get_dashboard_url": _DASHBOARD,
    "Function.info": _DASHBOARD,
    "Function.logs": "use `potluck app logs`",
    "Function.metrics": "use `potluck status`",
    "Function.object_id": "a function is known by its app and name",
    "Function.stats": "use Function.get_current_stats()",
    "FunctionCall.client": _SERVER,
    "FunctionCall.get_call_graph": "who called whom is not kept: `potluck status --calls` shows open calls",
    "FunctionCall.get_dashboard_url": _DASHBOARD,
    "FunctionCall.hydrate": "it is known as soon as it is made",
    "FunctionCall.logs": "use `potluck app logs`",
    "Image.build": "images are built when they are needed: Function.hydrate() does it now",
    "Image.client": _SERVER,
    "Image.from_aws_ecr": _PRIVATE,
    "Image.from_gcp_artifact_registry": _PRIVATE,
    "Image.from_name": "describe the image in code: it is built once",
    "Image.get_dashboard_url": _DASHBOARD,
    "Image.hydrate": "images are built when they are needed",
    "Image.logs": "what a step printed last is in its ImageBuildError",
    "Image.micromamba_install": "use uv_pip_install() or apt_install()",
    "Image.pip_install_private_repos": "use run_commands() with secrets=",
    "Image.publish": "use `potluck image push`",
    "Queue.client": _SERVER,
    "Queue.get_dashboard_url": _DASHBOARD,
    "Sandbox.client": _SERVER,
    "Sandbox.create_connect_token": "sandboxes are reached from your own machine: see Sandbox.tunnels()",
    "Sandbox.get_dashboard_url": _DASHBOARD,
    "Sandbox.hydrate": "it is known as soon as it is made",
    "Sandbox.logs": "read stdout and stderr",
    "Sandbox.mount_image": "nothing can be mounted in a sandbox that runs: add files to its image",
    "Sandbox.reload_volumes": "sandboxes have no volumes yet",
    "Sandbox.snapshot_directory": "copy it with filesystem.copy_to_local(), and add it to an image",
    "Sandbox.unmount_image": "nothing can be mounted in a sandbox that runs",
    "Secret.client": _SERVER,
    "Secret.get_dashboard_url": _DASHBOARD,
    "Secret.object_id": "a secret is known by its name",
    "Volume.client": _SERVER,
    "Volume.get_dashboard_url": _DASHBOARD,
    "exception.AsyncUsageWarning": "blocking calls may be used anywhere",
    "exception.AuthError": _SERVER,
    "exception.ClientClosed": "use ConnectionError",
    "exception.ConflictError": _SERVER,
    "exception.DataLossError": "use CorruptDataError",
    "exception.DeprecationError": "nothing is deprecated",
    "exception.InteractiveTimeoutError": "use TimeoutError",
    "exception.InternalAPIWarning": _SERVER,
    "exception.InternalError": "use Error",
    "exception.InternalFailure": "use Error",
    "exception.LogsFetchError": "use `potluck app logs`",
    "exception.ModuleNotMountable": "use SerializationError",
    "exception.MountUploadTimeoutError": "images are built and sent without such a limit",
    "exception.OutputExpiredError": "use NotFoundError, which FunctionCall.get() raises after 7 days",
    "exception.PermissionDeniedError": "use RefusedError",
    "exception.RequestSizeError": "use InvalidError",
    "exception.ResourceExhaustedError": "use ResourceExceededError or RefusedError",
    "exception.ServerWarning": _SERVER,
    "exception.ServiceError": "use ConnectionError",
    "exception.SnapshotCreationError": _SNAPSHOT,
    "exception.UnimplementedError": "use InvalidError",
    "exception.UserCodeException": "exceptions of a function arrive as their own type",
    "exception.VolumeUploadTimeoutError": "uploads have no such limit",
    "exception.WorkspaceManagementError": _SERVER,
}


class AbsentError(Error, AttributeError):
    """Modal has this name and Potluck does not; says what is nearest."""

    kind = "absent"


def absent(name: str) -> AbsentError:
    """The error for a name in `ABSENT`."""
    return AbsentError(f"Potluck has no {name}, which Modal has.", fix=ABSENT[name])


class _Names(type):
    if not TYPE_CHECKING:  # to whom it would mean that there is any attribute

        def __getattr__(cls, name: str) -> Any:
            raise _missing(cls, name)


class Absent(metaclass=_Names):
    """Base of classes whose Modal twin has more names: using one, of the class or an object, says what is nearest."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _missing(type(self), name)


def _missing(cls: type, name: str) -> AttributeError:
    for base in cls.__mro__:
        if f"{base.__name__}.{name}" in ABSENT:
            return absent(f"{base.__name__}.{name}")
    return AttributeError(f"{cls.__name__!r} has no attribute {name!r}")
