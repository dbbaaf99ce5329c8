"""The tables of shared state, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()

# Dicts, queues and volumes. `owner` is the node that an unnamed one ends with. `amount` and `bytes` sum up what it
# holds, but for volumes.
HOLDERS = Table(
    "potluck_holders",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("name", String(64)),
    Column("owner", String(80), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    Index("potluck_holder_names", "kind", "name", unique=True),
)

# Which apps' workers may open a name, also on peers that are not trusted.
GRANTS = Table(
    "potluck_grants",
    METADATA,
    Column("kind", String(8), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("app", String(64), primary_key=True),
)

# By the hash of the key: PostgreSQL's indexes take no more than 2704 bytes.
ENTRIES = Table(
    "potluck_entries",
    METADATA,
    Column("holder", String(40), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
)

# Partitions that hold items. `wanted`: somebody waits for room.
PARTITIONS = Table(
    "potluck_partitions",
    METADATA,
    Column("holder", String(40), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("wanted", Boolean, nullable=False, default=False),
)

# SQLite numbers rows by itself only in a column that is INTEGER to the letter.
ITEMS = Table(
    "potluck_items",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("holder", String(40), nullable=False),
    Column("partition", String(64), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Index("potluck_items_in_order", "holder", "partition", "number"),
    sqlite_autoincrement=True,
)

# Signed heads of volumes, whose trees are images. What is rolled back never was; what is here was pinned before.
VOLUME_HEADS = Table(
    "potluck_volume_heads",
    METADATA,
    Column("holder", String(40), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("image", String(64), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)
