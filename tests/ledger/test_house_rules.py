"""Rules of a lab: which count, for whom, where and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck.cli import rules
from potluck_ledger.entries import NO_LIMIT, PRIORITY_ZERO, Rule, read_content, sign
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.house_rules import HOUSE_RULES_MAX, Here, HouseRules
from potluck_ledger.keys import PrivateKey

ADMIN, ANN, BOB = (PrivateKey(bytes([number]) * 32) for number in range(3))
BOX = Here("12D3box", "gpu-box", (("lab", "vision"),))
OTHER = Here("12D3other", "old-box")
GROUPS = {"vision": [ANN.peer]}


def rule(what="reserve", name="vision", scope="group", at=1, **fields):
    values = {"machine": "", "level": PRIORITY_ZERO, "cpu_milli": NO_LIMIT, "gpus": NO_LIMIT, "starts_us": 10}
    values |= {"expires_us": 20, "nonce": bytes(16), "mesh": "lab", "admin": ADMIN.peer} | fields
    return Rule(what=what, scope=scope, name=name, at_us=at, **values)


def house(*found):
    made = HouseRules("lab", frozenset([ADMIN.peer]), lambda group, now_us: GROUPS.get(group, []))
    for each in found:
        made.record(read_content(sign(ADMIN, each).encode())[1])
    return made


def test_a_machine_is_reserved_for_a_group_for_a_while():
    found = house(rule(machine="gpu-box"))
    assert [bool(found.reserved(BOB.peer, BOX, now)) for now in (9, 10, 19, 20)] == [False, True, True, False]
    assert found.reserved(ANN.peer, BOX, 15) is None
    assert found.reserved(BOB.peer, OTHER, 15) is None


@pytest.mark.parametrize("machine", ["", "gpu-box", "12D3box", "lab=vision"])
def test_machines_are_meant_by_name_id_label_or_all(machine):
    assert BOX.is_meant(machine)
    assert OTHER.is_meant(machine) == (machine == "")


def test_of_two_reservations_at_one_time_both_may_use_it():
    found = house(rule(), rule(name=BOB.peer, scope="user"))
    assert found.reserved(ANN.peer, BOX, 15) is found.reserved(BOB.peer, BOX, 15) is None
    assert found.reserved(ADMIN.peer, BOX, 15)


def test_a_later_word_ends_an_earlier_one():
    found = house(rule(at=5), rule(at=6, expires_us=10))
    assert found.reserved(BOB.peer, BOX, 15) is None
    # One that was said before comes too late.
    assert not found.record(rule(at=5))


def test_the_highest_priority_of_somebody_counts():
    low = rule("priority", level=PRIORITY_ZERO - 5)
    high = rule("priority", ANN.peer, "user", level=PRIORITY_ZERO + 7)
    assert house(low, high).priority(ANN.peer, BOX, 15) == 7
    assert house(low).priority(ANN.peer, BOX, 15) == -5
    assert house(low).priority(BOB.peer, BOX, 15) == 0


def test_a_limit_is_shared_by_its_group():
    ((found, who),) = house(rule("limit", gpus=2)).limits(ANN.peer, BOX, 15)
    assert (found.gpus, who) == (2, {ANN.peer})
    assert house(rule("limit", gpus=2)).limits(BOB.peer, BOX, 15) == []


def test_only_admins_of_this_mesh_have_a_say_and_there_are_bounds():
    made = house()
    assert not made.record(rule(admin=BOB.peer))
    assert not made.record(rule(mesh="other"))
    assert [made.record(rule(name=f"g{number}")) for number in range(HOUSE_RULES_MAX + 1)].count(
        True
    ) == HOUSE_RULES_MAX


@pytest.mark.parametrize(
    "wrong",
    [{"what": "dance"}, {"scope": "app"}, {"name": ""}, {"expires_us": 9}, {"level": 201}, {"nonce": b"x"}],
)
def test_what_makes_no_sense_is_not_signed(wrong):
    with pytest.raises(EnvelopeError):
        sign(ADMIN, rule(**wrong))


@given(st.permutations([rule(at=at, level=PRIORITY_ZERO + at, what="priority") for at in range(5)]))
def test_all_come_to_the_same_in_whatever_order_they_hear(rules):
    made = HouseRules("lab", frozenset([ADMIN.peer]), lambda group, now_us: GROUPS.get(group, []))
    for each in rules:
        made.record(each)
    assert made.priority(ANN.peer, BOX, 15) == 4


def test_the_command_line_speaks_of_the_same_numbers():
    assert (rules.ZERO, rules.NO_LIMIT) == (PRIORITY_ZERO, NO_LIMIT)
