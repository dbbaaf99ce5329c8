"""Who says of its speed what its receipts do not fit, and who is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.test_audit import ANN, BOB, CY, DEE, EVE, used

from potluck_ledger.claims import median_of, misfits
from potluck_ledger.keys import PrivateKey

MANY = [PrivateKey(bytes([80 + number]) * 32) for number in range(6)]


def told(claims, entries, model=""):
    by_peer = {key.peer: {model: score} for key, score in claims.items()}
    return [finding.text for finding in misfits(by_peer, [each.receipt for each in entries])]


def test_faster_machines_that_say_so_are_left_alone():
    ours = [used(ANN, BOB, 40), used(ANN, CY, 10), used(ANN, DEE, 2)]
    assert told({BOB: 100, CY: 400, DEE: 2000}, ours) == []


@pytest.mark.parametrize(("claimed", "found"), [(299, False), (301, True), (34, False), (33, True)])
def test_who_is_not_what_it_says_is_named_with_what_its_receipts_speak_for(claimed, found):
    ours = [used(ANN, each, 10) for each in (BOB, CY, DEE)]
    texts = told({BOB: 100, CY: 100, DEE: claimed}, ours)
    speaks = f"{DEE.peer} claims {claimed} for its processor; 1 of 1 functions that can be compared speak for 100"
    assert texts == ([speaks] if found else [])


@pytest.mark.parametrize(("claimed", "found"), [(149, 0), (152, 1)])
def test_among_many_that_are_alike_less_is_enough(claimed, found):
    ours = [used(ANN, each, 10) for each in (*MANY, DEE)]
    assert len(told({**dict.fromkeys(MANY, 100), DEE: claimed}, ours)) == found


def test_one_function_among_several_proves_nothing():
    odd, rest = {"function": "ab" * 16}, (used(ANN, each, 10) for each in (BOB, CY, DEE))
    ours = [*rest, used(ANN, BOB, 10, **odd), used(ANN, CY, 10, **odd), used(ANN, DEE, 100, **odd)]
    assert told({BOB: 100, CY: 100, DEE: 100}, ours) == []


def test_what_cannot_be_compared_is_left_alone():
    ours = [used(ANN, BOB, 10), used(ANN, DEE, 10), used(ANN, CY, 10, inputs=2), used(ANN, EVE, 10)]
    # Two with a score; a third with too few inputs, a fourth that claims nothing, or nonsense.
    assert told({BOB: 100, DEE: 9000, CY: 100}, ours) == []
    assert told({BOB: 100, DEE: 9000, EVE: 0}, ours) == []
    assert told({BOB: 100, DEE: 9000, EVE: -100}, ours) == []


def test_several_gpus_are_known_by_the_score_of_one():
    ours = [used(ANN, each, 10, gpu_model="2x NVIDIA A10G") for each in (BOB, CY, DEE)]
    (text,) = told({BOB: 100, CY: 100, DEE: 1000}, ours, "NVIDIA A10G")
    assert f"{DEE.peer} claims 1000 for NVIDIA A10G" in text


@given(st.lists(st.integers(1, 10**6), min_size=3, max_size=6), st.lists(st.integers(1, 1000), min_size=1, max_size=3))
def test_true_scores_are_never_named_whatever_the_functions_cost(speeds, costs):
    """Products are alike up to rounding, which is far below what stands out."""
    ours, claims = [], {}
    for key, speed in zip(MANY, speeds, strict=False):
        claims[key] = speed
        ours += [used(ANN, key, cost * 1e7 / speed, function=f"{n:032x}") for n, cost in enumerate(costs)]
    assert told(claims, ours) == []


def test_what_is_usually_claimed_of_a_model():
    claims = {"a": {"T4": 10, "": 7}, "b": {"T4": 30}, "c": {"T4": 20}, "d": {"T4": -1}, "e": {}}
    assert median_of(claims, "T4") == median_of(claims, "2x T4") == 20
    assert median_of(claims, "") == 7
    assert median_of(claims, "A10G") == 0
