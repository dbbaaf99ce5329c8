"""The tables of deployed apps and their schedules, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, String, Table, Text

from potluck_node.state.tables import METADATA

# `version` is the one in charge, `last` the newest number that was given out.
APPS = Table(
    "potluck_apps",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
)

# `state` is rolling (not in charge yet), served (is or was in charge) or failed (never was, as `why` says). `node` is
# the peer id of the one that rolls it out; `source` the version that a rollback brought back, or 0. `functions` are
# locked, `schedules` are not: nodes that may not know what runs need not know when.
VERSIONS = Table(
    "potluck_app_versions",
    METADATA,
    Column("app", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),
    Column("why", Text, nullable=False),
    Column("author", String(200), nullable=False),
    Column("node", String(80), nullable=False),
    Column("tag", String(64), nullable=False),
    Column("comment", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("source", BigInteger, nullable=False),
    Column("functions", LargeBinary, nullable=False),
    Column("schedules", LargeBinary, nullable=False),
)

# The key with which functions are locked, sealed for each node that was given it.
KEYS = Table(
    "potluck_app_keys",
    METADATA,
    Column("node", String(80), primary_key=True),
    Column("sealed", LargeBinary),
)

# Tokens for web endpoints, locked with that key; see `tokens`.
TOKENS = Table(
    "potluck_tokens",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("locked", LargeBinary, nullable=False),
)

# The schedules of what is in charge; see `core.schedules.Row`.
SCHEDULES = Table(
    "potluck_schedules",
    METADATA,
    Column("app", String(64), primary_key=True),
    Column("function", String(128), primary_key=True),
    Column("schedule", LargeBinary, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False, default=0),
    Column("holder", String(80), nullable=False, default=""),
    Column("until_us", BigInteger, nullable=False, default=0),
    Column("fence", BigInteger, nullable=False, default=0),
)

# Their runs, each recorded before it begins: the key is what keeps one from running twice.
RUNS = Table(
    "potluck_schedule_runs",
    METADATA,
    Column("app", String(64), primary_key=True),
    Column("function", String(128), primary_key=True),
    Column("due_us", BigInteger, primary_key=True),
    Column("by_hand", Boolean, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("node", String(80), nullable=False),
    Column("call", String(64), nullable=False),
    Column("state", String(8), nullable=False),
    Column("why", Text, nullable=False),
)
