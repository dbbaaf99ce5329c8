"""Every error Potluck raises: what happened, why, and what to do next.

Errors cross machines as a `wire.Failure`; its `kind` is the key below and is never renamed or reused.
"""

from __future__ import annotations

import builtins
from typing import ClassVar, NoReturn


class Error(Exception):
    """The root of all of Potluck's errors.

    `what` says what happened, `why` the cause as far as it is known, `fix` what to do next.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"  why: {self.why}")
        if self.fix:
            parts.append(f"  fix: {self.fix}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.why, self.fix))


def _rebuild(cls: type[Error], what: str, why: str, fix: str) -> Error:
    return cls(what, why=why, fix=fix)


class InvalidError(Error):
    """The program uses Potluck in a way that cannot work."""

    kind = "invalid"


class NotFoundError(Error):
    """A named thing does not exist."""

    kind = "not-found"


class AlreadyExistsError(Error):
    """Something is to be made under a name that is taken."""

    kind = "already-exists"


class ConnectionError(Error):
    """No node answers on the control socket, or a peer cannot be reached."""

    kind = "connection"


class NodeStartError(ConnectionError):
    """No node runs and none can be started."""

    kind = "node-start"


class DataFolderBusyError(Error):
    """Another node already works on this data folder."""

    kind = "data-folder-busy"


class VerificationError(Error):
    """Peers that are not trusted did not agree on a result, or too few could be asked."""

    kind = "verification"


class NoPeerError(Error):
    """No peer has what the function asks for."""

    kind = "no-peer"


class SerializationError(Error):
    """An argument, result or function cannot be pickled; names the attribute."""

    kind = "serialization"


class ExecutionError(Error):
    """The function could not be run, for a reason that is not the function's own exception."""

    kind = "execution"


class RemoteError(ExecutionError):
    """The function raised an exception that cannot be rebuilt here."""

    kind = "remote"


class DeserializationError(SerializationError):
    """What the other side pickled cannot be unpickled."""

    kind = "deserialization"


class TimeoutError(Error, builtins.TimeoutError):
    """A result was waited for no longer; the call goes on."""

    kind = "wait-timeout"


class FunctionTimeoutError(TimeoutError):
    """An input ran longer than the function's `timeout`."""

    kind = "timeout"


class SandboxTimeoutError(TimeoutError):
    """A sandbox ran longer than its `timeout`."""

    kind = "sandbox-timeout"


class SandboxTerminatedError(Error):
    """A sandbox was ended before what ran in it was done."""

    kind = "sandbox-terminated"


class ExecTimeoutError(TimeoutError):
    """A command in a sandbox ran longer than its `timeout`."""

    kind = "exec-timeout"


class SandboxFilesystemError(Error):
    """A file of a sandbox cannot be used so."""

    kind = "sandbox-file"


class SandboxFilesystemNotFoundError(SandboxFilesystemError):
    """There is no such file or folder."""

    kind = "sandbox-file-missing"


class SandboxFilesystemIsADirectoryError(SandboxFilesystemError):
    """A folder is where a file should be."""

    kind = "sandbox-file-folder"


class SandboxFilesystemNotADirectoryError(SandboxFilesystemError):
    """Something that is no folder is where one should be."""

    kind = "sandbox-file-no-folder"


class SandboxFilesystemDirectoryNotEmptyError(SandboxFilesystemError):
    """A folder has something in it."""

    kind = "sandbox-file-not-empty"


class SandboxFilesystemPathAlreadyExistsError(SandboxFilesystemError):
    """Something is there already."""

    kind = "sandbox-file-exists"


class SandboxFilesystemPermissionError(SandboxFilesystemError):
    """The sandbox does not allow it."""

    kind = "sandbox-file-permission"


class SandboxFilesystemFileTooLargeError(SandboxFilesystemError):
    """A file is larger than what is read into memory at once."""

    kind = "sandbox-file-size"


class InputCancellation(Error):  # noqa: N818 - the name is Modal's
    """The input was cancelled before it finished."""

    kind = "cancelled"


class ImageBuildError(Error):
    """A step of the image failed; `why` has its last lines."""

    kind = "image-build"


class ImageError(Error):
    """An image, layer or manifest is unusable."""

    kind = "image"


class ImageImportError(ExecutionError):
    """The function imports a module that its image lacks."""

    kind = "image-import"


class PythonVersionError(InvalidError):
    """Caller and image run Pythons whose pickles do not fit."""

    kind = "python-version"


class StoreFullError(Error):
    """The disk, or the cap on the image store, is full."""

    kind = "store-full"


class CorruptDataError(Error):
    """Stored or received bytes are not what their digest says."""

    kind = "corrupt-data"


class SandboxError(Error):
    """A sandbox could not be started."""

    kind = "sandbox"


class ResourceExceededError(Error):
    """A limit of the sandbox ended the worker: memory, output, processes, scratch."""

    kind = "resource-exceeded"


class VersionError(Error):
    """The two sides speak different versions; says which one to upgrade."""

    kind = "version"


class RefusedError(Error):
    """A peer refused: busy, paused, policy, quota."""

    kind = "refused"


class LimitExceededError(Error):
    """Calls have used as much as `max_gpu_seconds` or `max_cost` allows; the rest was stopped."""

    kind = "limit-exceeded"


class LedgerError(Error):
    """A receipt or journal does not verify."""

    kind = "ledger"


class LocalProtocolError(Error):
    """We broke a protocol: a bug on this side. Please report it."""

    kind = "local-protocol"


class RemoteProtocolError(Error):
    """The other side broke a protocol; costs it trust."""

    kind = "remote-protocol"


def __getattr__(name: str) -> NoReturn:
    if name.startswith("_"):  # what the import system asks of every module
        raise AttributeError(name)
    from potluck.absent import ABSENT, absent

    if f"exception.{name}" in ABSENT:
        error = absent(f"exception.{name}")
        # As in `potluck.modal`: an AttributeError would lose the reason.
        raise InvalidError(error.what, fix=error.fix)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _all_kinds(cls: type[Error]) -> dict[str, type[Error]]:
    found = {cls.kind: cls}
    for sub in cls.__subclasses__():
        found |= _all_kinds(sub)
    return found


def from_kind(kind: str, what: str, *, why: str = "", fix: str = "") -> Error:
    """Rebuild an error that crossed a process; an unknown `kind` becomes a plain `Error`."""
    return _all_kinds(Error).get(kind, Error)(what, why=why, fix=fix)
