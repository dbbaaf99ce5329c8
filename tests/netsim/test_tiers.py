"""The simulator is held to what the node's own code does on virtual time."""

import dataclasses

import msgspec
import pytest
from click.testing import CliRunner

from potluck.errors import InvalidError
from potluck_netsim import network
from potluck_netsim.network import Network
from potluck_netsim.tiers import joined, simulated
from potluck_netsim.tiers.__main__ import main
from potluck_netsim.tiers.outcome import CLOSE, disagreements, table
from potluck_netsim.tiers.plan import PLANS, Call, Fault, Machine, Plan, read
from potluck_node.transport.memory import MemoryNetwork

NAMES = sorted(path.stem for path in PLANS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_simulator_and_the_nodes_own_code_agree(name):
    plan = read(PLANS / f"{name}.toml")
    outcomes = simulated.run(plan), joined.run(plan)
    assert list(disagreements(plan, *outcomes, CLOSE)) == [], table([*outcomes])


@pytest.mark.parametrize("seed", range(2, 6))
def test_seeds_of_the_simulator_make_no_difference_to_users(seed):
    plan = read(PLANS / "small.toml")
    assert list(disagreements(plan, simulated.run(plan), simulated.run(plan, seed), CLOSE)) == []


@pytest.mark.parametrize(("name", "nodes"), [("small", 13), ("cut", 32)])
def test_a_wider_mesh_agrees_too(name, nodes):
    plan = read(PLANS / f"{name}.toml")
    plan = plan.widened(nodes - sum(not node.lends for node in plan.nodes))
    outcomes = simulated.run(plan), joined.run(plan)
    assert [outcome.nodes for outcome in outcomes] == [nodes, nodes]
    assert list(disagreements(plan, *outcomes, CLOSE)) == [], table([*outcomes])


# A tier that is wrong is found out: by what users were promised, by times, or by counts.


def test_a_simulator_that_gives_up_silent_peers_late_is_found_out(monkeypatch):
    plan = read(PLANS / "cut.toml")
    monkeypatch.setattr(network, "DEAD_AFTER_US", 9_000_000)
    found = list(disagreements(plan, simulated.run(plan), joined.run(plan), CLOSE))
    # A cut of eight seconds ends no lease then: receipts are agreed which cannot be.
    assert any(each.startswith("receipts: ") for each in found)


def test_a_simulator_whose_network_is_slow_is_found_out(monkeypatch):
    plan = read(PLANS / "small.toml")
    monkeypatch.setattr(Network, "base_us", lambda *_: 200_000)
    assert any("median_s" in each for each in disagreements(plan, simulated.run(plan), joined.run(plan), CLOSE))


def test_a_transport_that_loses_nothing_when_it_should_is_found_out(monkeypatch):
    plan = read(PLANS / "small.toml")
    monkeypatch.setattr(MemoryNetwork, "silence", lambda *_: None)
    assert any("took_s" in each for each in disagreements(plan, simulated.run(plan), joined.run(plan), CLOSE))


def test_each_kind_of_disagreement_is_told():
    plan = read(PLANS / "small.toml")
    right = simulated.run(plan)

    def told(**changes):
        fates = (msgspec.structs.replace(right.fates[0], **changes), *right.fates[1:])
        return list(disagreements(plan, right, msgspec.structs.replace(right, fates=fates), CLOSE))

    assert told() == []
    for change in ({"results": 7, "failures": 1}, {"doubled": 1}, {"runs": 40}, {"runs": 7}, {"took_s": 9.0}):
        assert told(**change), change
    fewer = msgspec.structs.replace(right, fates=right.fates[1:], receipts=0, leases=0)
    assert len(list(disagreements(plan, right, fewer, dataclasses.replace(CLOSE, leases=0)))) >= 3


def test_the_command_prints_a_table_and_ends_with_0_when_all_agree():
    shown = CliRunner().invoke(main, ["small", "--lenders", "5"])
    assert shown.exit_code == 0, shown.output
    assert "joined: 6 nodes" in shown.output
    as_json = CliRunner().invoke(main, ["small", "--json"])
    assert msgspec.json.decode(as_json.output)["apart"] == []
    assert "is no plan" in CliRunner().invoke(main, ["nothing-of-that-name"]).output


PLAIN = Plan((Machine("cas"), Machine("bob")), (Call("one", 1, "cas"),), 9.0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nodes": (Machine("cas"), Machine("cas"))}, "two nodes 'cas'"),
        ({"calls": (Call("one", 1, "eve"),)}, "nobody is called 'eve'"),
        ({"calls": (Call("one", 1, "cas"), Call("one", 2, "cas"))}, "two calls 'one'"),
        ({"calls": (Call("one", 1, "cas", inputs=0),)}, "has no inputs"),
        ({"faults": (Fault(2, "kill", ("eve",)),)}, "nobody is called 'eve'"),
        ({"faults": (Fault(2, "kill", ("cas",)),)}, "must stay"),
        ({"ends_s": 0.5}, "something is to happen at 1"),
    ],
)
def test_a_plan_with_a_mistake_is_refused_with_its_reason(tmp_path, changes, why):
    path = tmp_path / "plan.toml"
    path.write_bytes(as_toml(msgspec.structs.replace(PLAIN, **changes)))
    with pytest.raises(InvalidError) as caught:
        read(path)
    assert why in caught.value.why


def test_a_plan_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_bytes(as_toml(PLAIN))
    assert read(path) == PLAIN
    path.write_text("nodes = 3")
    with pytest.raises(InvalidError, match="is no plan"):
        read(path)


def as_toml(plan):
    """Plans are plain: a line for each value, inline tables for the rest."""
    lines = [f"ends_s = {plan.ends_s}", f"latency_ms = {plan.latency_ms}"]
    for name in ("nodes", "calls", "faults"):
        tables = [", ".join(f"{key} = {_value(value)}" for key, value in msgspec.to_builtins(each).items())
                  for each in getattr(plan, name)]  # fmt: skip
        lines.append(f"{name} = [{', '.join(f'{{ {each} }}' for each in tables)}]")
    return "\n".join(lines).encode()


def _value(value):
    return msgspec.json.encode(value).decode()
