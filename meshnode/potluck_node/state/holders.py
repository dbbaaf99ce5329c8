"""Dicts, queues and volumes as such: made, found, listed, granted, deleted."""

from __future__ import annotations

import re
import secrets
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from potluck.errors import AlreadyExistsError, InvalidError, NotFoundError, RefusedError
from potluck.wire import state as messages
from potluck.wire.volumes import VOLUME, RenameVolume
from potluck_node.state.tables import ENTRIES, GRANTS, HOLDERS, ITEMS, PARTITIONS, VOLUME_HEADS
from potluck_node.state.work import GONE, Asker, Outcome, Spot, Work

_PREFIXES = {messages.DICT: "di", messages.QUEUE: "qu", VOLUME: "vo"}
# Enough that nobody guesses one: who knows the id may use it.
_ID_BYTES = 16


def open_one(work: Work, request: messages.Open, asker: Asker) -> Outcome:
    """Raises `InvalidError`, `NotFoundError`, `RefusedError`, `AlreadyExistsError`."""
    kind, name = request.kind, request.name
    if kind not in _PREFIXES:
        raise InvalidError(f"There is nothing like a {kind[:40]!r}.")
    if not name:
        return Outcome(_make(work, kind, None))
    _check_name(kind, name)
    found = _named(work, kind, name)
    if found is None and not request.create:
        raise NotFoundError(f"There is no {kind} named {name}.", fix="Make it: from_name(…, create_if_missing=True).")
    may = asker.trusted or _granted(work, kind, name, asker.app)
    if found is not None and not may:
        raise _refused(kind, name, asker)
    if found is not None and request.new:
        raise AlreadyExistsError(f"There is a {kind} named {name} already.", fix="Give allow_existing=True.")
    if found is not None:
        return Outcome(_facts(found))
    if not may:
        _check_app(work, asker.app)
    made = _make(work, kind, name)
    if not may:
        work.db.execute(insert(GRANTS).values(kind=kind, name=name, app=asker.app))
    return Outcome(made)


def find(work: Work, request: messages.Find, _asker: Asker) -> Outcome:
    """Raises `NotFoundError`."""
    return Outcome(_facts(work.holder(request.kind, request.id)))


def list_all(work: Work, request: messages.ListHolders, asker: Asker) -> Outcome:
    """Raises `RefusedError`."""
    _require_trust(asker, "list")
    query = select(HOLDERS).where(HOLDERS.c.kind == request.kind, HOLDERS.c.name.is_not(None))
    if request.before_us:
        query = query.where(HOLDERS.c.created_us < request.before_us)
    newest = query.order_by(HOLDERS.c.created_us.desc(), HOLDERS.c.name)
    rows = work.db.execute(newest.limit(max(0, min(request.most, messages.HOLDERS_MAX))))
    return Outcome(messages.Holders(tuple(_facts(row) for row in rows)))


def grant(work: Work, request: messages.Grant, asker: Asker) -> Outcome:
    """Raises `RefusedError`, `InvalidError`."""
    if asker.app:
        raise RefusedError("A worker cannot grant anything.")
    _check_name(request.kind, request.name)
    if not _granted(work, request.kind, request.name, request.app):
        work.db.execute(insert(GRANTS).values(kind=request.kind, name=request.name, app=request.app))
    return Outcome(messages.Yes())


def remove(work: Work, request: messages.Delete, asker: Asker) -> Outcome:
    """Raises `RefusedError` when an untrusted worker wants to delete what has a name."""
    query = select(HOLDERS).where(HOLDERS.c.kind == request.kind)
    wanted = HOLDERS.c.id == request.id if request.id else HOLDERS.c.name == request.name
    found = work.db.execute(query.where(wanted)).one_or_none()
    if found is not None and found.name is not None:
        _require_trust(asker, "delete")
        work.db.execute(delete(GRANTS).where(GRANTS.c.kind == found.kind, GRANTS.c.name == found.name))
    if found is not None:
        drop(work, found.id)
    return Outcome(messages.Yes(found is not None))


def rename(work: Work, request: RenameVolume, asker: Asker) -> Outcome:
    """Raises `RefusedError`, `InvalidError`, `NotFoundError`, `AlreadyExistsError`."""
    _require_trust(asker, "rename")
    _check_name(VOLUME, request.new)
    found = _named(work, VOLUME, request.name)
    if found is None:
        raise NotFoundError(f"There is no volume named {request.name:.64}.")
    if _named(work, VOLUME, request.new) is not None:
        raise AlreadyExistsError(f"There is a volume named {request.new} already.")
    work.db.execute(update(HOLDERS).where(HOLDERS.c.id == found.id).values(name=request.new))
    return Outcome(messages.Yes())


def drop(work: Work, holder: str) -> None:
    """Remove one with all that it holds."""
    for table in (ENTRIES, ITEMS, PARTITIONS, VOLUME_HEADS):
        work.db.execute(delete(table).where(table.c.holder == holder))
    work.db.execute(delete(HOLDERS).where(HOLDERS.c.id == holder))
    work.tell(Spot(holder, "", GONE))


def drop_unnamed(work: Work) -> None:
    """Remove all that were to end with this node: at a start nobody uses them any more."""
    rows = work.db.execute(select(HOLDERS.c.id).where(HOLDERS.c.name.is_(None), HOLDERS.c.owner == work.node))
    for (holder,) in rows.all():
        drop(work, holder)


def _make(work: Work, kind: str, name: str | None) -> messages.Holder:
    if work.db.execute(select(func.count()).select_from(HOLDERS)).scalar_one() >= messages.HOLDERS_MAX:
        raise InvalidError(f"There are {messages.HOLDERS_MAX} dicts, queues and volumes already.", fix="Delete some.")
    row = {
        "id": f"{_PREFIXES[kind]}-{secrets.token_hex(_ID_BYTES)}",
        "kind": kind,
        "name": name,
        "owner": work.node,
        "created_us": work.now_us,
    }
    work.db.execute(insert(HOLDERS).values(row))
    return messages.Holder(kind, str(row["id"]), name or "", work.now_us)


def _named(work: Work, kind: str, name: str) -> Any:
    return work.db.execute(select(HOLDERS).where(HOLDERS.c.kind == kind, HOLDERS.c.name == name)).one_or_none()


def _granted(work: Work, kind: str, name: str, app: str) -> bool:
    query = select(GRANTS.c.app).where(GRANTS.c.kind == kind, GRANTS.c.name == name, GRANTS.c.app == app)
    return work.db.execute(query).one_or_none() is not None


def _check_app(work: Work, app: str) -> None:
    query = select(func.count()).select_from(GRANTS).where(GRANTS.c.app == app)
    if work.db.execute(query).scalar_one() >= messages.APP_NAMES_MAX:
        raise RefusedError(
            f"Workers of {app} have {messages.APP_NAMES_MAX} names already.", fix="Use one dict for more."
        )


def _facts(row: Any) -> messages.Holder:
    return messages.Holder(row.kind, row.id, row.name or "", row.created_us)


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{messages.NAME_MAX}}}", name):
        raise InvalidError(
            f"{name[: messages.NAME_MAX]!r} is not a name for a {kind}.",
            fix=f"Use up to {messages.NAME_MAX} letters, digits, '-', '_' and '.'.",
        )


def _require_trust(asker: Asker, verb: str) -> None:
    if not asker.trusted:
        raise RefusedError(f"A worker on a peer that is not trusted cannot {verb} dicts, queues and volumes by name.")


def _refused(kind: str, name: str, asker: Asker) -> RefusedError:
    return RefusedError(
        f"The app {asker.app} may not use the {kind} {name} on this peer.",
        why="the peer is not trusted, and the app was not given this name",
        fix="Make the handle at the top of the program instead of in the function, or pass it as an argument.",
    )
