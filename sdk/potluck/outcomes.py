"""From an outcome on the wire to a value or an exception."""

from __future__ import annotations

from typing import Any

from potluck.errors import RemoteError, SerializationError
from potluck.serialize import loads
from potluck.wire import RemoteException
from potluck.wire.control import CallOutcome


class RemoteTraceback(Exception):  # noqa: N818 - it is the cause of an error, not one itself
    """Shown as the cause of an exception that was raised on another machine."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def value(outcome: CallOutcome) -> Any:
    """The result. Raises the function's own exception, or the error that kept it from running."""
    if outcome.payload is not None:
        return loads(outcome.payload)
    raise error(outcome)


def error(outcome: CallOutcome) -> BaseException:
    """What went wrong, as an exception; one of the function's own has the remote traceback as its cause."""
    if outcome.exception is not None:
        return _rebuild(outcome.exception)
    assert outcome.failure is not None
    return outcome.failure.error()


def _rebuild(remote: RemoteException) -> BaseException:
    from potluck import plain

    try:
        raised = loads(remote.pickled) if remote.pickled else plain.exception(remote.type_name, remote.arguments)
    except SerializationError:
        raised = None
    if not isinstance(raised, BaseException):
        raised = RemoteError(f"{remote.type_name}: {remote.message}", why="its own type cannot be rebuilt here")
    raised.__cause__ = RemoteTraceback(remote.traceback)
    return raised
