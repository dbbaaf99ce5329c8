"""Control groups: the real ones where this machine lets us, and the v2 layout as a tree of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from potluck_node.sandbox import cgroups
from potluck_node.sandbox.interface import Limits

LIMITS = Limits(memory_mib=100, pids=20, cpu_milli=1500)


def fake_v2(tmp_path: Path, given: str) -> Path:
    """A v2 tree: we live in /user/app/node.scope; `app` hands `given` to its children. Returns the proc folder."""
    top = tmp_path / "cgroup"
    app = top / "user" / "app"
    (app / "node.scope").mkdir(parents=True)
    for folder in (top, app.parent, app, app / "node.scope"):
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.subtree_control").write_text(given if folder == app else "")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("0::/user/app/node.scope\n")
    (proc / "mountinfo").write_text(f"30 24 0:26 / {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n")
    return proc


def test_v2_uses_the_nearest_group_that_hands_down_controllers(tmp_path: Path) -> None:
    found = cgroups.detect(fake_v2(tmp_path, "cpu memory pids"))
    assert found.v2
    assert set(found.folders.values()) == {tmp_path / "cgroup" / "user" / "app"}
    assert found.describe() == "control groups v2 limit memory, pids, cpu"


def test_v2_limits_are_written(tmp_path: Path) -> None:
    group = cgroups.detect(fake_v2(tmp_path, "cpu memory pids")).create(LIMITS)
    (folder,) = set(group.folders.values())
    assert group.entries() == [folder / "cgroup.procs"]
    read = {path.name: path.read_text() for path in folder.iterdir()}
    assert read == {"memory.max": "100M", "pids.max": "20", "cpu.max": "150000 100000"}
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.oom_kills() == 2


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    assert cgroups.detect(fake_v2(tmp_path, "memory")).describe() == "control groups v2 limit memory; not pids, cpu"


def test_nothing_delegated(tmp_path: Path) -> None:
    found = cgroups.detect(fake_v2(tmp_path, "cpu"))
    assert found.folders == {}
    assert "Delegate=yes" in found.describe()


def test_groups_of_dead_nodes_are_removed(tmp_path: Path) -> None:
    proc = fake_v2(tmp_path, "memory")
    app = tmp_path / "cgroup" / "user" / "app"
    stale, alive = app / "potluck-999999999-0", app / "potluck-1-0"
    stale.mkdir()
    alive.mkdir()
    cgroups.detect(proc)
    assert (stale.exists(), alive.exists()) == (False, True)


def test_a_half_made_group_is_removed(tmp_path: Path) -> None:
    found = cgroups.Cgroups({"memory": tmp_path, "pids": tmp_path / "missing"}, v2=False)
    with pytest.raises(OSError, match="missing"):
        found.create(LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_real_groups() -> None:
    found = cgroups.detect()
    if not found.folders:
        pytest.skip("this machine delegates no control groups")
    group = found.create(LIMITS)
    try:
        assert all(folder.is_dir() for folder in group.folders.values())
        assert group.oom_kills() == 0
        if "pids" in group.folders:
            assert (group.folders["pids"] / "pids.max").read_text() == "20\n"
    finally:
        assert group.remove()
