"""Operations on deployed apps: which version is in charge, which is on its way, and which were before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, func, insert, select, update

from potluck.errors import InvalidError, NotFoundError
from potluck_node.state import app_schedules
from potluck_node.state.app_tables import APPS, VERSIONS
from potluck_node.state.work import APPS_CHANGED, Work

# On disk and in memory.
DEPLOYED_MAX = 1000
# Versions kept of an app, the one in charge included: each is as large as what it deploys, mostly some KiB.
HISTORY_MAX = 50

ROLLING, SERVED, FAILED = "rolling", "served", "failed"


class Proposal(NamedTuple):
    """A version before it has a number. `functions` are locked; see `app_tables` for the rest."""

    app: str
    functions: bytes
    author: str
    node: str
    tag: str
    comment: str
    digest: str
    schedules: bytes
    source: int = 0


class InCharge(NamedTuple):
    """`functions` is None when they are known already."""

    number: int
    at_us: int
    tag: str
    node: str
    functions: bytes | None


def propose(work: Work, version: Proposal) -> int:
    """Record it as on its way, in place of any other that is; returns its number. Raises `InvalidError` beyond the
    limit."""
    app = version.app
    last = work.db.execute(select(APPS.c.last).where(APPS.c.name == app)).scalar_one_or_none()
    if last is None:
        _check_room(work)
        work.db.execute(insert(APPS).values(name=app, version=0, last=1))
    else:
        work.db.execute(update(APPS).where(APPS.c.name == app).values(last=last + 1))
    number = int(last or 0) + 1
    _fail(work, (VERSIONS.c.app == app,), f"version {number} was deployed meanwhile")
    row = version._asdict() | {"number": number, "at_us": work.now_us, "state": ROLLING, "why": ""}
    work.db.execute(insert(VERSIONS).values(row))
    _prune(work, app)
    work.tell(APPS_CHANGED)
    return number


def take_over(work: Work, app: str, number: int) -> bool:
    """Put a version in charge; not one that is on its way no more."""
    at = (VERSIONS.c.app == app, VERSIONS.c.number == number, VERSIONS.c.state == ROLLING)
    if not work.db.execute(update(VERSIONS).where(*at).values(state=SERVED)).rowcount:
        return False
    work.db.execute(update(APPS).where(APPS.c.name == app).values(version=number))
    app_schedules.replace_all(work, app, bytes(find(work, app, number).schedules))
    work.tell(APPS_CHANGED)
    return True


def give_up(work: Work, app: str, number: int, why: str) -> None:
    """A version will never be in charge."""
    _fail(work, (VERSIONS.c.app == app, VERSIONS.c.number == number), why)
    work.tell(APPS_CHANGED)


def give_up_all(work: Work, node: str) -> None:
    """A node begins anew: whatever it was about to put in charge is not."""
    _fail(work, (VERSIONS.c.node == node,), "its node ended before it could take over")


def all_in_charge(work: Work, known: Mapping[str, int]) -> dict[str, InCharge]:
    """What is in charge of each app; without the functions where the version is `known`."""
    join = (VERSIONS.c.app == APPS.c.name) & (VERSIONS.c.number == APPS.c.version)
    columns = (APPS.c.name, VERSIONS.c.number, VERSIONS.c.at_us, VERSIONS.c.tag, VERSIONS.c.node)
    found = work.db.execute(select(*columns).join(VERSIONS, join).order_by(APPS.c.name)).all()
    return {
        name: InCharge(
            number, at_us, tag, node, None if known.get(name) == number else functions_of(work, name, number)
        )
        for name, number, at_us, tag, node in found
    }


def functions_of(work: Work, app: str, number: int) -> bytes:
    """What a version deploys, locked. Raises `NotFoundError`."""
    return bytes(find(work, app, number).functions)


def find(work: Work, app: str, number: int) -> Row[Any]:
    """Raises `NotFoundError`."""
    at = (VERSIONS.c.app == app, VERSIONS.c.number == number)
    found = work.db.execute(select(VERSIONS).where(*at)).one_or_none()
    if found is None:
        raise NotFoundError(f"The app {app} has no version {number} any more.", fix=f"See `potluck app history {app}`.")
    return found


def before(work: Work, app: str) -> int:
    """The version that was in charge before the one that is. Raises `NotFoundError` when there is none."""
    current = work.db.execute(select(APPS.c.version).where(APPS.c.name == app)).scalar_one_or_none() or 0
    at = (VERSIONS.c.app == app, VERSIONS.c.number < current, VERSIONS.c.state == SERVED)
    number = work.db.execute(select(func.max(VERSIONS.c.number)).where(*at)).scalar_one()
    if number is None:
        raise NotFoundError(f"The app {app} has no version to go back to.", fix=f"See `potluck app history {app}`.")
    return int(number)


def history(work: Work, app: str) -> tuple[int, list[Row[Any]]]:
    """(the version in charge or 0, all versions with the newest first, without what they deploy)."""
    current = work.db.execute(select(APPS.c.version).where(APPS.c.name == app)).scalar_one_or_none() or 0
    columns = [each for each in VERSIONS.c if each.name not in ("functions", "schedules")]
    query = select(*columns).where(VERSIONS.c.app == app).order_by(VERSIONS.c.number.desc())
    return int(current), list(work.db.execute(query).all())


def forget(work: Work, app: str) -> bool:
    """Remove an app with its history; returns whether there was one."""
    work.db.execute(delete(VERSIONS).where(VERSIONS.c.app == app))
    app_schedules.forget(work, app)
    work.tell(APPS_CHANGED)
    return bool(work.db.execute(delete(APPS).where(APPS.c.name == app)).rowcount)


def _fail(work: Work, which: tuple[Any, ...], why: str) -> None:
    at = (*which, VERSIONS.c.state == ROLLING)
    work.db.execute(update(VERSIONS).where(*at).values(state=FAILED, why=why))


def _prune(work: Work, app: str) -> None:
    kept = select(VERSIONS.c.number).where(VERSIONS.c.app == app).order_by(VERSIONS.c.number.desc()).limit(HISTORY_MAX)
    current = select(APPS.c.version).where(APPS.c.name == app).scalar_subquery()
    at = (VERSIONS.c.app == app, VERSIONS.c.number.not_in(kept), VERSIONS.c.number != current)
    work.db.execute(delete(VERSIONS).where(*at))


def _check_room(work: Work) -> None:
    if work.db.execute(select(func.count()).select_from(APPS)).scalar_one() >= DEPLOYED_MAX:
        raise InvalidError(
            f"{DEPLOYED_MAX} apps are deployed here already.", fix="End some first: potluck app stop APP"
        )
