"""The database of shared state: SQLite in the node's folder, or PostgreSQL. One transaction at a time on either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from potluck.errors import InvalidError
from potluck_node.state import app_tables as _app_tables  # noqa: F401 - its tables are made, too
from potluck_node.state.tables import METADATA

# The lock that all nodes of one PostgreSQL database take in turns: the first bytes of "potluck state" as a number.
LOCK = 0x706F746C75636B
# How long a database may take to accept a connection, seconds.
CONNECT_TIMEOUT_S = 10


def open_database(place: Path | str) -> Engine:
    """`place` is the file of an SQLite database, or the URL of a PostgreSQL one. Makes missing tables.

    Raises `InvalidError` when it cannot be used.
    """
    engine = _sqlite(place) if isinstance(place, Path) else _postgres(place)
    try:
        with engine.begin() as db:
            METADATA.create_all(db)
    except SQLAlchemyError as error:
        engine.dispose()
        why = str(getattr(error, "orig", None) or error)
        raise InvalidError(
            "The database of shared state cannot be used.", why=why, fix="See the setting `state`, or mend it."
        ) from None
    return engine


def _sqlite(path: Path) -> Engine:
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise InvalidError(f"{path} cannot be used.", why=str(error)) from None
    # One connection, which one thread at a time uses.
    engine = create_engine(f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        # FULL: what was acknowledged survives a power cut.
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")

    @event.listens_for(engine, "begin")
    def _begin(db: Any) -> None:
        db.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgres(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise InvalidError(
                "The setting `state` names no PostgreSQL database.", fix="Write postgresql://USER@HOST/DATABASE."
            )
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_size=1, max_overflow=0, pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        )  # fmt: skip
    except (ArgumentError, ImportError) as error:
        why, fix = str(error).splitlines()[0], "Install what it needs: pip install 'potluck[node,postgres]'"
        raise InvalidError("The database of shared state cannot be used.", why=why, fix=fix) from None

    @event.listens_for(engine, "begin")
    def _begin(db: Any) -> None:
        # As SQLite does by itself: so no two nodes wait for each other, and items have the order of their commits.
        db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})

    return engine
