"""Turns what went wrong in user code into messages."""

from __future__ import annotations

import os
import sys
from _pickle import loads

from .codec import Message

# Longest text of an exception's message or traceback that is sent, characters. A recursion error shows the same frame
# a thousand times; nobody reads more.
TEXT_MAX = 64 << 10

# Largest pickled exception, bytes. An exception that carries a data set is better sent as text.
EXCEPTION_BYTES_MAX = 1 << 20

# Of what went wrong at a start, characters; repeats `wire.worker.TROUBLE_MAX`.
TROUBLE_MAX = 2000

# Modules whose package has another name, among the most downloaded.
_PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "google.protobuf": "protobuf",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

# Modules whose frames stand between the runner's loop and the user's code.
_BETWEEN = (__package__, "asyncio", "importlib")


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake of the runner
    """The runner cannot do what it was asked; the fields of a `wire.Failure`."""

    def __init__(self, kind: str, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.message: Message = ["Failure", kind, what, why, fix]


def in_short(error: BaseException) -> str:
    """One line or so, for who waits for a worker."""
    try:
        return f"{type(error).__name__}: {error}"[:TROUBLE_MAX]
    except Exception:  # noqa: BLE001 - an exception that cannot say what it is
        return type(error).__name__


def late(limit_s: float) -> str:
    """What is said of a start that takes too long."""
    return f"it was not ready after {limit_s:g} s"


def exception_message(error: BaseException, plain: bool = False) -> Message:
    """`error` as a `wire.RemoteException`, without the runner's own frames; with `plain` as data only."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    forms = [b"", _plain(error)] if plain else [_pickled(error), b""]
    return ["RemoteException", name, _text(error), _traceback(error), *forms]


def missing_module(error: ImportError, needed_by: str) -> Refusal:
    """What to tell the user when an import failed inside the image."""
    name = error.name or ""
    if not isinstance(error, ModuleNotFoundError) or not name:
        return Refusal("image-import", f"{needed_by} could not be imported in its image.", why=str(error))
    package = _PACKAGES.get(name, name.split(".")[0])
    package = _PACKAGES.get(package, package)
    return Refusal(
        "image-import",
        f"{needed_by} needs the module {name!r}, which its image lacks.",
        why=f"{type(error).__name__}: {error}",
        fix=f'Add the package to the image: image.pip_install("{package}"), or your own files with '
        f'image.add_local_python_source("{name.split(".")[0]}").',
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)[:TEXT_MAX]
    except BaseException as second:  # noqa: BLE001 - a broken __str__ must not hide the error itself
        return f"<its text could not be made: {type(second).__name__}>"


def _traceback(error: BaseException) -> str:
    import traceback

    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as second:  # noqa: BLE001 - as above
        text = f"<the traceback could not be made: {type(second).__name__}>"
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX // 2]}\n...\n{text[-TEXT_MAX // 2 :]}"


def _is_ours(filename: str) -> bool:
    folders = [os.path.dirname(sys.modules[name].__file__ or "") for name in _BETWEEN if name in sys.modules]
    return filename.startswith("<frozen ") or os.path.dirname(filename) in folders


def _plain(error: BaseException) -> bytes:
    """The exception's arguments and attributes as data, as far as they are."""
    from . import plain

    for state in (vars(error), {}):
        try:
            data = plain.dumps((error.args, state))
        except BaseException:  # noqa: BLE001 - whatever a property of one raises
            continue
        return data if len(data) <= EXCEPTION_BYTES_MAX else b""
    return b""


def _pickled(error: BaseException) -> bytes:
    """The pickled exception, or nothing when it does not survive the trip."""
    from . import results

    try:
        data = results.dumps(error)
        whole = isinstance(loads(data), BaseException)
    except BaseException:  # noqa: BLE001 - whatever its own pickling code raises
        return b""
    return data if whole and len(data) <= EXCEPTION_BYTES_MAX else b""
