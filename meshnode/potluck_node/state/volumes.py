"""Heads of volumes in the database. Which trees they name is the affair of `potluck_node.volumes`."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, func, insert, select

from potluck.wire import volumes as messages
from potluck_ledger.volume_heads import VolumeHead
from potluck_node.state.tables import HOLDERS, VOLUME_HEADS
from potluck_node.state.work import Work


def head(volume: str) -> Callable[[Work], messages.VolumeAt]:
    """The newest version, answered by `VolumeAt`. Raises `NotFoundError`."""

    def do(work: Work) -> messages.VolumeAt:
        work.holder(messages.VOLUME, volume)
        newest = select(VOLUME_HEADS).where(VOLUME_HEADS.c.holder == volume).order_by(VOLUME_HEADS.c.version.desc())
        row = work.db.execute(newest.limit(1)).one_or_none()
        return messages.VolumeAt(row.version, row.image, row.envelope) if row else messages.VolumeAt(0, "")

    return do


def append(volume: str, version: int, image: str, envelope: bytes) -> Callable[[Work], messages.VolumeAt]:
    """One more version, after `version - 1`; the oldest ones go. Answered by `VolumeAt`, of 0 when another commit came
    first, on top of which this one is to be made anew. Raises `NotFoundError`."""

    def do(work: Work) -> messages.VolumeAt:
        work.holder(messages.VOLUME, volume)
        newest = select(func.coalesce(func.max(VOLUME_HEADS.c.version), 0)).where(VOLUME_HEADS.c.holder == volume)
        if work.db.execute(newest).scalar_one() != version - 1:
            return messages.VolumeAt(0, "")
        row = {"holder": volume, "version": version, "image": image, "envelope": envelope}
        work.db.execute(insert(VOLUME_HEADS).values(row))
        old = (VOLUME_HEADS.c.holder == volume, VOLUME_HEADS.c.version <= version - messages.HISTORY_MAX)
        work.db.execute(delete(VOLUME_HEADS).where(*old))
        return messages.VolumeAt(version, image, envelope)

    return do


def page(volume: str, before: int = 0, most: int = messages.PAGE_HEADS) -> Callable[[Work], messages.VolumeHeads]:
    """Versions, the newest first, answered by `VolumeHeads`. Raises `NotFoundError`."""

    def do(work: Work) -> messages.VolumeHeads:
        work.holder(messages.VOLUME, volume)
        query = select(VOLUME_HEADS.c.envelope).where(VOLUME_HEADS.c.holder == volume)
        if before:
            query = query.where(VOLUME_HEADS.c.version < before)
        rows = work.db.execute(query.order_by(VOLUME_HEADS.c.version.desc()).limit(most + 1)).scalars().all()
        return messages.VolumeHeads(tuple(rows[:most]), len(rows) > most)

    return do


def version(volume: str, number: int) -> Callable[[Work], messages.VolumeAt]:
    """One version, answered by `VolumeAt` of 0 if there is none. Raises `NotFoundError` without the volume."""

    def do(work: Work) -> messages.VolumeAt:
        work.holder(messages.VOLUME, volume)
        at = (VOLUME_HEADS.c.holder == volume, VOLUME_HEADS.c.version == number)
        row = work.db.execute(select(VOLUME_HEADS).where(*at)).one_or_none()
        return messages.VolumeAt(row.version, row.image, row.envelope) if row else messages.VolumeAt(0, "")

    return do


def name_of(volume: str) -> Callable[[Work], str]:
    """Its name, "" for none. Raises `NotFoundError`."""
    return lambda work: work.holder(messages.VOLUME, volume).name or ""


def recover(head: VolumeHead, envelope: bytes) -> Callable[[Work], str]:
    """Have a volume with this version again; answered by its name, "" if there is such a volume."""

    def do(work: Work) -> str:
        ids = select(HOLDERS.c.id).where(HOLDERS.c.id == head.volume)
        if work.db.execute(ids).one_or_none() is not None:
            return ""
        names = select(HOLDERS.c.id).where(HOLDERS.c.kind == messages.VOLUME, HOLDERS.c.name == head.name)
        is_taken = work.db.execute(names).one_or_none() is not None
        name = f"{head.name[:48]}-{head.volume[3:11]}" if is_taken else head.name
        row = {"id": head.volume, "kind": messages.VOLUME, "name": name, "owner": work.node, "created_us": head.at_us}
        work.db.execute(insert(HOLDERS).values(row))
        version = {"holder": head.volume, "version": head.version, "image": head.image, "envelope": envelope}
        work.db.execute(insert(VOLUME_HEADS).values(version))
        return name

    return do


def kept(work: Work) -> dict[tuple[str, int], str]:
    """The image of each (volume, version)."""
    columns = (VOLUME_HEADS.c.holder, VOLUME_HEADS.c.version, VOLUME_HEADS.c.image)
    return {(row.holder, row.version): row.image for row in work.db.execute(select(*columns))}


def newest(work: Work) -> dict[str, tuple[str, bytes]]:
    """Name, "" for none, and newest envelope of each volume by id."""
    last = select(VOLUME_HEADS.c.holder, func.max(VOLUME_HEADS.c.version).label("version"))
    latest = last.group_by(VOLUME_HEADS.c.holder).subquery()
    same = (VOLUME_HEADS.c.holder == latest.c.holder) & (VOLUME_HEADS.c.version == latest.c.version)
    named = select(VOLUME_HEADS, HOLDERS.c.name).join(latest, same).join(HOLDERS, HOLDERS.c.id == latest.c.holder)
    return {row.holder: (row.name or "", row.envelope) for row in work.db.execute(named)}
