"""What dicts and queues have in common: found by name or id, made for a while, listed, deleted, sent to workers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from potluck.absent import Absent
from potluck.asking import Both, Steps, drive, drive_async
from potluck.errors import Error, InvalidError, NotFoundError

if TYPE_CHECKING:
    from typing import Self

    from potluck.wire.state import Holder

HandleT = TypeVar("HandleT", bound="Handle")

# Kind and name of each handle that this program made by name: workers of its apps may use these.
named: set[tuple[str, str]] = set()


class ObjectInfo(NamedTuple):
    """What is known of a dict or queue; `created_by` is always None, as there are no accounts."""

    name: str | None
    created_at: datetime
    created_by: str | None = None


class Handle(Absent):
    """Refers to a dict or queue on its owner's node. Whoever has it can use it, in functions too."""

    _kind: ClassVar[str]

    def __init__(self, name: str = "", object_id: str = "", create: bool = False) -> None:
        self._name, self._object_id, self._create = name, object_id, create
        self._facts: Holder | None = None
        self.hydrate = Both(self._hydrate)
        self.info = Both(self._info)

    @classmethod
    def _by_name(cls, name: str, create: bool) -> Self:
        if not isinstance(name, str) or not name:
            raise InvalidError(f"{cls.__name__}.from_name() takes a name.")
        named.add((cls._kind, name))
        return cls(name, create=create)

    @property
    def name(self) -> str | None:
        """Its name, None if it has none."""
        return self._name or None

    @property
    def object_id(self) -> str:
        """Its id, by which `from_id` finds it: who knows it can use it. Asks the node, the first time."""
        return drive(self._id())

    def _id(self) -> Steps[str]:
        if not self._object_id:
            yield from self._hydrate()
        return self._object_id

    def _hydrate(self) -> Steps[Self]:
        """Find it, or make it, now instead of when it is first used. Returns itself. Raises `NotFoundError`."""
        from potluck.wire.state import Find, Open

        if self._facts is None:
            by_id = Find(self._kind, self._object_id)
            facts: Holder = yield by_id if self._object_id else Open(self._kind, self._name, self._create)
            self._took(facts)
        return self

    def _took(self, facts: Holder) -> None:
        self._facts, self._object_id, self._name = facts, facts.id, facts.name

    def _info(self) -> Steps[ObjectInfo]:
        """Its name, and when it was made."""
        yield from self._hydrate()
        assert self._facts
        return ObjectInfo(self.name, datetime.fromtimestamp(self._facts.created_us / 1e6, UTC))

    def __repr__(self) -> str:
        # Without the id, which lets others use it.
        return f"<{type(self).__name__} {self._name or 'without a name'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # With its id, where it can be known: a worker on a peer that is not trusted may not look for names.
        try:
            return _known, (type(self), self._name, drive(self._id()))
        except Error:
            return type(self), (self._name, self._object_id, self._create)


def _known(cls: type[HandleT], name: str, object_id: str) -> HandleT:
    return cls(name, object_id)


class Ephemeral(Generic[HandleT]):
    """`with` or `async with`: one without a name, for as long as the block lasts, and this program at most."""

    def __init__(self, cls: type[HandleT]) -> None:
        self._cls = cls
        self._handle: HandleT | None = None

    def __enter__(self) -> HandleT:
        return drive(self._make())

    def __exit__(self, *_: object) -> None:
        drive(self._end())

    async def __aenter__(self) -> HandleT:
        return await drive_async(self._make())

    async def __aexit__(self, *_: object) -> None:
        await drive_async(self._end())

    def _make(self) -> Steps[HandleT]:
        from potluck.wire.state import Open

        facts: Holder = yield Open(self._cls._kind)
        self._handle = self._cls()
        self._handle._took(facts)
        return self._handle

    def _end(self) -> Steps[None]:
        from potluck.wire.state import Delete

        if self._handle:
            yield Delete(self._cls._kind, self._handle._object_id)


class Manager(Generic[HandleT]):
    """`Dict.objects` and `Queue.objects`: the named ones on this node."""

    def __init__(self, cls: Callable[[], type[HandleT]]) -> None:
        self._cls = cls
        self.create = Both(self._create)
        self.list = Both(self._list)
        self.delete = Both(self._delete)

    def _create(self, name: str, *, allow_existing: bool = False, environment_name: str | None = None) -> Steps[None]:
        """Make one. Raises `AlreadyExistsError` unless `allow_existing`. `environment_name` is passed over."""
        from potluck.wire.state import Open

        yield Open(self._cls()._kind, name, create=True, new=not allow_existing)

    def _list(
        self,
        *,
        max_objects: int | None = None,
        created_before: datetime | str | None = None,
        environment_name: str = "",
    ) -> Steps[list[HandleT]]:
        """The newest first. `created_before` is a time, or a date as in "2026-01-31"; without a zone, local."""
        from potluck.wire.state import HOLDERS_MAX, Holders, ListHolders

        if isinstance(created_before, str):
            created_before = datetime.fromisoformat(created_before)
        before_us = round(created_before.timestamp() * 1e6) if created_before else 0
        cls, most = self._cls(), HOLDERS_MAX if max_objects is None else max_objects
        found: Holders = yield ListHolders(cls._kind, before_us, most)
        handles = []
        for facts in found.holders:
            handles.append(cls())
            handles[-1]._took(facts)
        return handles

    def _delete(self, name: str, *, allow_missing: bool = False, environment_name: str | None = None) -> Steps[None]:
        """Delete one with all that it holds. Raises `NotFoundError` unless `allow_missing`."""
        from potluck.wire.state import Delete, Yes

        done: Yes = yield Delete(self._cls()._kind, name=name)
        if not done.yes and not allow_missing:
            raise NotFoundError(f"There is no {self._cls()._kind} named {name}.")


def named_for(app: str) -> set[Any]:
    """The requests by which workers of an app may use the names that this program made handles of."""
    from potluck.wire.state import Grant

    return {Grant(kind, name, app) for kind, name in named}
