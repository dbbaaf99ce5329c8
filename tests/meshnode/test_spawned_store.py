"""What is recorded of spawned calls, and what survives."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from potluck.errors import InvalidError, NotFoundError, StoreFullError
from potluck.wire import FunctionSpec
from potluck.wire.common import Limit
from potluck.wire.spawned import RESULTS_US, SpawnedOutcome
from potluck_ledger.keys import PrivateKey
from potluck_ledger.sealing import Vault
from potluck_node import spawned_store
from potluck_node.spawned_store import SpawnedStore

SPEC = FunctionSpec("app", "work", "ab" * 32, "3.11", module="m", qualname="work")
NOW_US = 1_800_000_000_000_000
VAULT = Vault(PrivateKey(bytes(32)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spawned.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SpawnedStore]:
    made = SpawnedStore(path, VAULT)
    yield made
    made.close()


def reopened(store: SpawnedStore, path: Path) -> SpawnedStore:
    store.close()
    return SpawnedStore(path, VAULT)


def test_a_call_and_its_outcomes_survive_a_restart(store: SpawnedStore, path: Path) -> None:
    call = store.add(SPEC, [b"a", b"b", b"c"], NOW_US, whole=True)
    store.finish([(call, SpawnedOutcome(0, 1, payload=b"B"))])
    again = reopened(store, path)
    assert again.facts(call) == (SPEC, 3, 1)
    assert again.unfinished() == [call]
    assert again.waiting(call, -1, 10) == [(0, b"a"), (2, b"c")]
    assert again.waiting(call, 0, 10) == [(2, b"c")]
    assert again.waiting(call, -1, 1) == [(0, b"a")]
    assert again.outcome(call, 1) == SpawnedOutcome(0, 1, payload=b"B")
    assert again.outcome(call, 0) is None
    again.close()


def test_what_a_call_has_used_of_its_limit_survives_a_restart(store: SpawnedStore, path: Path) -> None:
    call, other = (store.add(SPEC, [b"a", b"b"], NOW_US, whole=True) for _ in range(2))
    for number in (0, 1):
        store.finish([(call, SpawnedOutcome(0, number, payload=b"A"))], {call: (5 + number, 3)})
    again = reopened(store, path)
    assert (again.spent(call), again.spent(other)) == ((6, 3), (0, 0))
    again.purge(NOW_US + RESULTS_US + 1)
    assert again.spent(call) == (0, 0)
    again.close()


def test_limits_of_what_spawned_it_survive_as_long_as_a_call_that_is_under_them(
    store: SpawnedStore, path: Path
) -> None:
    inner, outer = Limit("inner", 5, 0), Limit("before inner", 50, 7)
    one = store.add(SPEC, [b"a"], NOW_US, whole=True, under=[(inner, 1, 1), (outer, 2, 2)])
    two = store.add(SPEC, [b"a"], NOW_US + 10, whole=True, under=[(outer, 4, 2)])
    store.finish([(two, SpawnedOutcome(0, 0, payload=b"A"))], {two: (3, 3), "before inner": (9, 5)})
    again = reopened(store, path)
    assert again.under(one) == ((inner, 1, 1), (outer, 9, 5))
    again.purge(NOW_US + RESULTS_US + 1)
    assert (again.under(one), again.under(two), again.spent("inner")) == ((), ((outer, 9, 5),), (0, 0))
    again.purge(NOW_US + RESULTS_US + 11)
    assert again.spent("before inner") == (0, 0)
    again.close()


def test_the_first_outcome_counts(store: SpawnedStore) -> None:
    call = store.add(SPEC, [b"a"], NOW_US, whole=True)
    store.finish([(call, SpawnedOutcome(0, 0, payload=b"first"))])
    store.finish([(call, SpawnedOutcome(0, 0, payload=b"second"))])
    found = store.outcome(call, 0)
    assert found
    assert found.payload == b"first"
    assert store.unfinished() == []
    assert store.lacking(call) == []


def test_a_call_runs_only_when_it_is_whole(store: SpawnedStore, path: Path) -> None:
    partial = store.add(SPEC, [b"a"], NOW_US, whole=False)
    store.extend(partial, [b"b"], whole=False)
    assert store.unfinished() == []
    store.extend(partial, [b"c"], whole=True)
    assert store.unfinished() == [partial]
    assert [payload for _, payload in store.waiting(partial, -1, 9)] == [b"a", b"b", b"c"]
    with pytest.raises(NotFoundError):
        store.extend(partial, [b"d"], whole=True)
    left = store.add(SPEC, [b"x"], NOW_US, whole=False)
    again = reopened(store, path)
    again.drop_partial()
    with pytest.raises(NotFoundError):
        again.facts(left)
    assert again.facts(partial).inputs == 3
    again.close()


def test_results_are_kept_for_their_time_and_no_longer(store: SpawnedStore) -> None:
    call = store.add(SPEC, [b"a"], NOW_US, whole=True)
    store.purge(NOW_US + RESULTS_US)
    assert store.facts(call).inputs == 1
    store.purge(NOW_US + RESULTS_US + 1)
    with pytest.raises(NotFoundError, match="no call"):
        store.outcome(call, 0)


def test_what_is_not_there_is_said(store: SpawnedStore) -> None:
    call = store.add(SPEC, [b"a"], NOW_US, whole=True)
    with pytest.raises(NotFoundError, match="no input 1"):
        store.outcome(call, 1)
    with pytest.raises(NotFoundError, match="7 days"):
        store.facts("fc-unknown")


def test_a_full_disk_records_nothing(store: SpawnedStore) -> None:
    """SQLite's own limit of pages stands in for the disk's."""
    call = store.add(SPEC, [b"a"], NOW_US, whole=True)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFullError):
        store.add(SPEC, [bytes(1 << 20)], NOW_US, whole=True)
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.unfinished() == [call]


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(InvalidError, match="cannot be used"):
        SpawnedStore(path, VAULT)


def test_what_is_too_large_to_be_kept_is_refused_and_holds_up_nothing(
    store: SpawnedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawned_store, "KEPT_BYTES_MAX", 1 << 20)
    large = bytes((1 << 20) + 1)
    with pytest.raises(InvalidError, match="more than 1 MiB"):
        store.add(SPEC, [b"small", large], NOW_US, whole=True)
    assert store.unfinished() == []
    call = store.add(SPEC, [b"a", b"b", large[1:]], NOW_US, whole=True)
    store.finish([(call, SpawnedOutcome(0, 0, payload=large)), (call, SpawnedOutcome(0, 1, payload=b"B"))])
    found = store.outcome(call, 0)
    assert found
    assert found.failure
    assert "returned more than 1 MiB" in found.failure.what
    assert store.outcome(call, 1) == SpawnedOutcome(0, 1, payload=b"B")


def test_the_limit_is_below_what_sqlite_takes(store: SpawnedStore) -> None:
    assert spawned_store.KEPT_BYTES_MAX < spawned_store.SQLITE_BYTES_MAX
    assert store._db.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) >= spawned_store.SQLITE_BYTES_MAX
