"""`Cls`: a class with other options than it was registered with, or one that was found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, cast

from potluck.absent import Absent
from potluck.calls import WithAio
from potluck.cls import OPTIONS, REGISTRATION, check_batched
from potluck.errors import InvalidError
from potluck.options import Options
from potluck.runner.service import members
from potluck.sharing import Sharing, checked_batching, checked_concurrency, joined

if TYPE_CHECKING:
    from potluck.options import CallSettings


class Cls(Absent):
    """A class with other options: made by `Model.with_options(…)`, or found with `Cls.from_name`. Called, it makes an
    object."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.hydrate = WithAio(self._hydrate)

    @staticmethod
    def from_name(app_name: str, name: str, *, environment_name: str | None = None) -> Cls:
        """The class of an app that was deployed on this machine. Raises `NotFoundError` when it is used and there is
        none. `environment_name` is passed over: there is one environment, the local node."""
        from potluck.found import FoundCls

        return FoundCls(app_name, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """An object with these parameters. Raises `InvalidError`."""
        raise NotImplementedError

    def with_options(self, **settings: Unpack[CallSettings]) -> Cls:
        """The same class with other settings, and so with workers of its own. Raises `InvalidError`."""
        return self._with(self._options.changed(settings))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Cls:
        """The same class as `@potluck.concurrent` would make it. Raises `InvalidError`."""
        return self._with_sharing(checked_concurrency(max_inputs, target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Cls:
        """The same class, its one method as `@potluck.batched` would make it. Raises `InvalidError`."""
        return self._with_sharing(checked_batching(max_batch_size, wait_ms))

    def _with_sharing(self, sharing: Sharing) -> Cls:
        return self._with(self._options.shared(joined(sharing, self._options.sharing)))

    def _with(self, options: Options) -> Cls:
        raise NotImplementedError

    def _hydrate(self) -> Cls:
        """Look it up now instead of when it is first used. Returns itself."""
        return self


class LocalCls(Cls):
    """A class of this program."""

    def __init__(self, cls: type, options: Options | None = None) -> None:
        registration = vars(cls).get(REGISTRATION)
        if registration is None:
            raise InvalidError(f"{cls.__name__} is not registered.", fix="Decorate it with @app.cls().")
        super().__init__(options or registration.options)
        self._cls = cls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = self._cls(*args, **kwargs)
        vars(made)[OPTIONS] = self._options
        return made

    def _with(self, options: Options) -> Cls:
        if options.sharing.batch_size:
            check_batched(self._cls)
        return LocalCls(self._cls, options)

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalCls, (self._cls,)


def _with_options(cls: type, **settings: Unpack[CallSettings]) -> Cls:
    return LocalCls(cls).with_options(**settings)


def _with_concurrency(cls: type, *, max_inputs: int, target_inputs: int | None = None) -> Cls:
    return LocalCls(cls).with_concurrency(max_inputs=max_inputs, target_inputs=target_inputs)


def _with_batching(cls: type, *, max_batch_size: int, wait_ms: int) -> Cls:
    return LocalCls(cls).with_batching(max_batch_size=max_batch_size, wait_ms=wait_ms)


# As in Modal, a registered class has these itself.
_ON_CLASSES = {
    "with_options": _with_options,
    "with_concurrency": _with_concurrency,
    "with_batching": _with_batching,
}


def equip(cls: type) -> None:
    """Give a registered class these ways to make others of it, unless it has something of that name."""
    for name, function in _ON_CLASSES.items():
        if name not in members(cls):
            setattr(cls, name, classmethod(cast(Any, function)))
