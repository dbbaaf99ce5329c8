"""A lab of real nodes: an admin grants, who has used that up is refused with the reason, others go on."""

import json

import pytest
from tests.e2e import quota_sample as sample
from tests.e2e.mesh import Node, run_cli, wait_until

import potluck
from potluck import calls, found
from potluck.errors import LimitExceededError, RefusedError
from potluck_ledger.entries import Receipt
from potluck_ledger.journal import verify
from potluck_ledger.keys import load_or_create


def lab(mesh):
    """The admin's node, a provider, and two callers, all of one lab."""
    (mesh.folder / "boss").mkdir(mode=0o711)
    admin = load_or_create(mesh.folder / "boss" / "node.key").peer
    flags = ("--ledger-admins", admin)
    boss = mesh.caller("boss", *flags)
    mesh.provider("ann", *flags)
    callers = [mesh.caller(name, *flags) for name in ("cas", "dan")]
    for node in (boss, *callers):
        wait_until(lambda node=node: any(peer.name == "ann" for peer in node.status().peers), "finding the provider")
    return boss, *callers


def quota(node: Node):
    found = run_cli(node, "ledger", "quota", "--json")
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def use(node, use_node, seconds, inputs=1):
    use_node(node)
    with sample.app.run(show_progress=False):
        return list(sample.work.map(range(inputs), kwargs={"seconds": seconds}))


def test_who_has_used_up_its_quota_is_refused_and_others_go_on(mesh, use_node):
    boss, cas, dan = lab(mesh)
    for caller, seconds in ((cas, "2"), (dan, "600")):
        granted = run_cli(boss, "ledger", "grant", caller.status().peer, "--gpu-seconds", seconds)
        assert granted.returncode == 0, granted.stderr
        wait_until(lambda caller=caller: quota(caller), "the grant")
    assert quota(cas)[0]["granted_us"] == 2_000_000
    assert use(cas, use_node, 0.3, inputs=3) == [0, 2, 4]
    wait_until(lambda: quota(cas)[0]["used_us"] > 800_000, "counting what was used")
    with pytest.raises(RefusedError, match="its quota is used up") as refused:
        use(cas, use_node, 600)
    assert "of 2.0 s used" in refused.value.why
    assert "potluck ledger grant" in refused.value.fix
    assert use(dan, use_node, 0.1, inputs=3) == [0, 2, 4]
    used = [entry.content for entry in verify(*cas.journal()) if isinstance(entry.content, Receipt)]
    assert sum(receipt.lease_us for receipt in used) < 7_000_000
    more = run_cli(boss, "ledger", "grant", cas.status().peer, "--gpu-seconds", "60", "--per", "week")
    assert more.returncode == 0, more.stderr
    wait_until(lambda: quota(cas)[0]["granted_us"] == 60_000_000, "the new grant")
    assert use(cas, use_node, 0.1) == [0]


def test_a_limit_stops_a_map_and_little_more_is_billed(mesh, use_node):
    caller = use_node(mesh.caller())
    mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding the provider")
    with sample.app.run(show_progress=False):
        results: list[int] = []
        with pytest.raises(LimitExceededError, match="max_gpu_seconds=3"):
            results.extend(each for each in sample.work.map(range(100), max_gpu_seconds=3))
        with pytest.raises(LimitExceededError, match="max_cost=1"):
            sample.work.with_options(max_cost=1).remote(1, seconds=600)
        assert sample.work.remote(4, seconds=0) == 8
    wait_until(lambda: receipts(caller), "the receipt")
    assert len(results) in range(1, 7)
    # Each limit, with a voucher's interval beyond.
    assert sum(receipt.lease_us for receipt in receipts(caller)) < 3_000_000 + 1_000_000 + 2 * 5_000_000


def test_limits_hold_for_what_functions_call_for_spawned_calls_and_for_deployed_functions(mesh, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    monkeypatch.setattr(found, "_link", None)
    node = use_node(mesh.node("ann"))
    with sample.app.run(show_progress=False):
        with pytest.raises(LimitExceededError, match="max_gpu_seconds=3"):
            sample.outer.with_options(max_gpu_seconds=3).remote(600)
        assert sample.lenient.remote(600) == ["LimitExceededError"] * 2
        with pytest.raises(LimitExceededError, match="max_gpu_seconds=2"):
            sample.limited.spawn(1, 600).get(timeout=60)
        with pytest.raises(LimitExceededError, match="max_gpu_seconds=2"):
            potluck.FunctionCall.from_id(sample.leaver.remote(600)).get(timeout=60)
    deployed = run_cli(node, "deploy", "-q", sample.__file__)
    assert deployed.returncode == 0, deployed.stderr
    for _ in range(2):
        with pytest.raises(LimitExceededError, match="max_gpu_seconds=2"):
            potluck.Function.from_name("quota", "limited").remote(1, 600)
    assert potluck.Function.from_name("quota", "limited").remote(4, 0) == 8


def receipts(node: Node):
    return [entry.content for entry in verify(*node.journal()) if isinstance(entry.content, Receipt)]


def test_a_long_call_ends_when_its_quota_does_and_says_why(mesh, use_node):
    boss, cas, _ = lab(mesh)
    assert run_cli(boss, "ledger", "member", "students", cas.status().peer).returncode == 0
    granted = run_cli(boss, "ledger", "grant", "students", "--gpu-seconds", "4", "--class", "cpu", "--per", "day")
    assert granted.returncode == 0, granted.stderr
    wait_until(lambda: quota(cas), "the grant")
    with pytest.raises(RefusedError, match="its quota is used up"):
        use(cas, use_node, 600)
    used = [entry.content for entry in verify(*cas.journal()) if isinstance(entry.content, Receipt)]
    # One voucher's interval beyond, at most.
    assert 4_000_000 <= sum(receipt.lease_us for receipt in used) < 9_000_000
    listed = run_cli(cas, "ledger", "grants")
    assert "students" in listed.stdout
    assert listed.stdout.endswith(f"This node obeys {boss.status().peer}.\n")
    nobody = run_cli(boss, "ledger", "grant", "nobody", "--gpu-seconds", "4")
    assert "No node named nobody" in nobody.stderr


def test_a_reserved_machine_takes_work_of_those_alone(mesh, use_node):
    boss, cas, dan = lab(mesh)
    for caller in (cas, dan):
        assert run_cli(boss, "ledger", "grant", caller.status().peer, "--gpu-seconds", "600").returncode == 0
        wait_until(lambda caller=caller: quota(caller), "the grant")
    said = run_cli(boss, "mesh", "reserve", cas.status().peer, "--machine", "ann", "--to", "2099-01-01")
    assert "ann is reserved for the user" in said.stdout, said.stderr
    assert run_cli(boss, "mesh", "priority", dan.status().peer, "5").returncode == 0
    assert run_cli(boss, "mesh", "limit", dan.status().peer, "--cpus", "4", "--gpus", "1").returncode == 0
    for node in (dan, mesh.nodes[1]):
        wait_until(lambda node=node: len(json.loads(run_cli(node, "mesh", "rules", "--json").stdout)) == 3, "the rules")
    assert "alone" in run_cli(dan, "mesh", "rules").stdout
    with pytest.raises(RefusedError, match="ann is reserved for the user"):
        use(dan, use_node, 0.1)
    assert use(cas, use_node, 0.1) == [0]
    assert "is no time" in run_cli(boss, "mesh", "reserve", cas.status().peer, "--to", "soon").stderr
    assert "a limit is of something" in run_cli(boss, "mesh", "limit", cas.status().peer).stderr.lower()
