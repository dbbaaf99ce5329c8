"""An object of an `@app.cls()` class: made in the zygote, entered in each worker, its methods called by name.

The SDK shares what finds the hooks, so that `.local()` does the same.
"""

from __future__ import annotations

import _thread
import types

from .codec import unpack
from .failures import Refusal, in_short

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

# What `potluck.enter` and `potluck.exit` leave on a function, and its values.
MARK = "_potluck_hook"
SNAP, ENTER, EXIT = "snap", "enter", "exit"

# Key in an object's `__dict__`: its hooks have begun, so that a method calling another one does not start them again.
ENTERED = "_potluck_entered"

# As in the module `inspect`, which is slow to import.
_CO_COROUTINE = 0x80


def members(cls: type) -> dict[str, Any]:
    """What is defined in a class, base classes first; what is overridden keeps its place."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(vars(base))
    return found


def hooks(instance: object, *kinds: str) -> list[Callable[[], Any]]:
    """The bound hooks, all of one kind before those of the next."""
    found = members(type(instance))
    names = [name for kind in kinds for name, member in found.items() if getattr(member, MARK, None) == kind]
    return [getattr(instance, name) for name in names]


class Service:
    """Raises whatever building the object and its `enter(snap=True)` raise.

    `parameters` is a packed list of pairs. `timeout_s` bounds entering. `finish` waits for a coroutine, by default on
    an event loop that serves the whole life of a worker, and what is bound to it.
    """

    def __init__(self, cls: type, parameters: bytes, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        methods = {name: _raw(member) for name, member in members(cls).items()}
        self._methods = {name: raw for name, raw in methods.items() if raw}
        self.finish: Callable[[Any], object] = self._run_here
        self._runner: asyncio.Runner | None = None
        self._entering, self._entered = _thread.allocate_lock(), False
        self._failure: BaseException | None = None
        pairs: Any = unpack(parameters)
        self._instance = cls(**dict(pairs))
        vars(self._instance)[ENTERED] = True
        _import_asyncio(self._methods.values())
        for hook in hooks(self._instance, SNAP):
            run_apart(hook())

    def try_enter(self) -> str:
        """Enter; a failure becomes the outcome of the next input, and the one after that tries again. Returns what it
        was, in short."""
        try:
            self._enter()
        except BaseException as error:  # noqa: BLE001 - SystemExit is an outcome, too
            self._failure = error
            return in_short(error)
        return ""

    def __call__(self, method: str, /, *args: Any, **kwargs: Any) -> object:
        """Call a method and wait for its result."""
        return self._finished(self.begin(method, *args, **kwargs))

    def raw(self, method: str) -> Any:
        """The plain function of a method, None when there is none."""
        return self._methods.get(method)

    def bound(self, method: str) -> Callable[..., Any]:
        """A method of the object, which has entered."""
        self._enter()
        raw = self._methods.get(method)
        if raw is None:
            raise Refusal("not-found", f"{type(self._instance).__name__} has no method {method!r} in its image.")
        return types.MethodType(raw, self._instance)

    def begin(self, method: str, /, *args: Any, **kwargs: Any) -> object:
        """Call a method; a coroutine or generator is still to run."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self.bound(method)(*args, **kwargs)

    def leave(self) -> None:
        """Run every exit hook, then raise what they raised."""
        errors: list[BaseException] = []
        for hook in hooks(self._instance, EXIT) if self._entered else []:
            try:
                self._finished(hook())
            except BaseException as error:  # noqa: BLE001 - raised below, with the others
                errors.append(error)
        if self._runner is not None:
            self._runner.close()
        if errors:
            raise BaseExceptionGroup("exit failed", errors)

    def _enter(self) -> None:
        with self._entering:
            if self._entered:
                return
            for hook in hooks(self._instance, ENTER):
                self._finished(hook())
            self._entered = True

    def _finished(self, result: object) -> object:
        return self.finish(result) if isinstance(result, types.CoroutineType) else result

    def _run_here(self, coroutine: Any) -> object:
        if self._runner is None:
            import asyncio

            self._runner = asyncio.Runner()
        from _contextvars import copy_context

        # The runner would keep that of the first input.
        return self._runner.run(coroutine, context=copy_context())


def _raw(member: Any) -> Any:
    """The plain function of an `@potluck.method()`; None for anything else."""
    get = getattr(member, "get_raw_f", None)
    return get() if callable(get) else None


def run_apart(result: object) -> object:
    """What a coroutine returns, finished on an event loop of its own: none survives a fork."""
    if not isinstance(result, types.CoroutineType):
        return result
    import asyncio

    return asyncio.run(result)


def _import_asyncio(functions: Any) -> None:
    """Once, before workers are forked, instead of in each."""
    if any(getattr(getattr(each, "__code__", None), "co_flags", 0) & _CO_COROUTINE for each in functions):
        import asyncio  # noqa: F401
