"""Operations on dicts."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update

from potluck.errors import InvalidError
from potluck.wire import state as messages
from potluck_node.core.trust import is_data
from potluck_node.state.tables import ENTRIES, HOLDERS
from potluck_node.state.work import Asker, Outcome, Work

# Values of one IN (…): SQLite takes 32,766 variables, PostgreSQL 65,535.
_CHUNK = 1000


def get(work: Work, request: messages.Get, _asker: Asker) -> Outcome:
    work.holder(messages.DICT, request.id)
    value = work.db.execute(select(ENTRIES.c.value).where(*_at(request.id, request.key))).scalar_one_or_none()
    return Outcome(messages.Values(() if value is None else (value,)))


def has(work: Work, request: messages.Has, _asker: Asker) -> Outcome:
    work.holder(messages.DICT, request.id)
    found = work.db.execute(select(ENTRIES.c.digest).where(*_at(request.id, request.key))).one_or_none()
    return Outcome(messages.Yes(found is not None))


def put(work: Work, request: messages.Put, _asker: Asker) -> Outcome:
    """Raises `InvalidError` beyond a limit, `StoreFullError`."""
    holder = work.holder(messages.DICT, request.id)
    _check(request)
    # Of two values for one key the later counts.
    given = {_digest(key): (key, value) for key, value in zip(request.keys, request.values, strict=True)}
    before = _sizes(work, request.id, list(given))
    if request.new:
        given = {digest: pair for digest, pair in given.items() if digest not in before}
    fresh = {digest: pair for digest, pair in given.items() if digest not in before}
    if int(holder.amount) + len(fresh) > messages.ENTRIES_MAX:
        raise InvalidError(f"A dict has at most {messages.ENTRIES_MAX} entries.", fix="Remove some, or use another.")
    size = sum(len(key) + len(value) for key, value in given.values())
    work.grow(request.id, len(fresh), size - sum(before[digest] for digest in given.keys() & before.keys()))
    _write(work, request.id, given, fresh.keys())
    return Outcome(messages.Yes(bool(given)))


def _write(work: Work, holder: str, given: Mapping[bytes, tuple[bytes, bytes]], fresh: Collection[bytes]) -> None:
    added = [
        {"holder": holder, "digest": digest, "key": key, "value": value}
        for digest, (key, value) in given.items()
        if digest in fresh
    ]
    if added:
        work.db.execute(insert(ENTRIES), added)
    for digest, (_, value) in given.items():
        if digest not in fresh:
            at = (ENTRIES.c.holder == holder, ENTRIES.c.digest == digest)
            work.db.execute(update(ENTRIES).where(*at).values(value=value))


def pop(work: Work, request: messages.Pop, _asker: Asker) -> Outcome:
    work.holder(messages.DICT, request.id)
    query = delete(ENTRIES).where(*_at(request.id, request.key)).returning(ENTRIES.c.value)
    value = work.db.execute(query).scalar_one_or_none()
    if value is None:
        return Outcome(messages.Values())
    work.grow(request.id, -1, -len(request.key) - len(value))
    return Outcome(messages.Values((value,)))


def page(work: Work, request: messages.Entries, _asker: Asker) -> Outcome:
    """In the order of the keys' hashes, which no change of other entries changes."""
    work.holder(messages.DICT, request.id)
    size = func.length(ENTRIES.c.key) + (func.length(ENTRIES.c.value) if request.values else 0)
    query = select(ENTRIES.c.digest, size).where(ENTRIES.c.holder == request.id).order_by(ENTRIES.c.digest)
    if request.after is not None:
        query = query.where(ENTRIES.c.digest > _digest(request.after))
    digests, more = _fitting(work.db.execute(query.limit(messages.PAGE_ITEMS + 1)).all())
    if not digests:
        return Outcome(messages.Page())
    span = (ENTRIES.c.holder == request.id, ENTRIES.c.digest.between(digests[0], digests[-1]))
    keys, values = (
        _column(work, column, span) for column in (ENTRIES.c.key, ENTRIES.c.value if request.values else None)
    )
    return Outcome(messages.Page(keys, values, more))


def _column(work: Work, column: ColumnElement[bytes] | None, span: Sequence[ColumnElement[bool]]) -> tuple[bytes, ...]:
    if column is None:
        return ()
    return tuple(work.db.execute(select(column).where(*span).order_by(ENTRIES.c.digest)).scalars())


def clear(work: Work, holder: str) -> None:
    found = work.holder(messages.DICT, holder)
    work.db.execute(delete(ENTRIES).where(ENTRIES.c.holder == holder))
    work.grow(holder, -int(found.amount), -int(found.bytes))


def count(work: Work, holder: str) -> int:
    return int(work.db.execute(select(HOLDERS.c.amount).where(HOLDERS.c.id == holder)).scalar_one())


def _fitting(rows: Sequence[Row[bytes, int]]) -> tuple[list[bytes], bool]:
    """As many as a page takes, one at least, and whether there are more."""
    taken: list[bytes] = []
    total = 0
    for digest, size in rows[: messages.PAGE_ITEMS]:
        total += size
        if taken and total > messages.PAGE_BYTES:
            break
        taken.append(digest)
    return taken, len(taken) < len(rows)


def _sizes(work: Work, holder: str, digests: list[bytes]) -> dict[bytes, int]:
    """Bytes of those entries that are there."""
    size = func.length(ENTRIES.c.key) + func.length(ENTRIES.c.value)
    found: dict[bytes, int] = {}
    for some in _chunks(digests):
        at = (ENTRIES.c.holder == holder, ENTRIES.c.digest.in_(some))
        found |= {row[0]: row[1] for row in work.db.execute(select(ENTRIES.c.digest, size).where(*at))}
    return found


def _chunks(digests: list[bytes]) -> Iterator[list[bytes]]:
    return (digests[start : start + _CHUNK] for start in range(0, len(digests), _CHUNK))


def _at(holder: str, key: bytes) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return ENTRIES.c.holder == holder, ENTRIES.c.digest == _digest(key)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _check(request: messages.Put) -> None:
    if len(request.keys) != len(request.values) or len(request.keys) > messages.UPDATE_MAX:
        raise InvalidError(f"At most {messages.UPDATE_MAX} entries are put at once.", fix="Put them in parts.")
    for key in request.keys:
        if len(key) > messages.KEY_BYTES_MAX or not is_data(key):
            raise InvalidError(
                f"A key is data of at most {messages.KEY_BYTES_MAX >> 10} KiB.", fix="Use a shorter one."
            )
    if sum(map(len, request.values)) > messages.VALUE_BYTES_MAX:
        raise InvalidError(
            f"At most {messages.VALUE_BYTES_MAX >> 20} MiB are put at once.", fix="Put large data into the image."
        )
