"""Who is refused for a quota, and in which words; what a GPU model is and weighs."""

import msgspec
import pytest
from tests.ledger.test_quotas import ANN, CPU_ONLY, NOW_US, Lab, S, grant
from tests.meshnode.core.worlds import needs

from potluck.wire.offer import GpuOffer
from potluck_ledger.quotas import DAY_US
from potluck_ledger.usage import What
from potluck_node.core.quotas import is_of, refusal, weigher, what_runs


def refused(lab, deficit=0, *, running=False, what=CPU_ONLY):
    return refusal(lab.quotas, "mira", ANN.peer, what, deficit * S, NOW_US, running=running)


@pytest.mark.parametrize(
    ("used", "deficit", "begins", "goes_on"),
    [(99, 0, True, True), (100, 0, False, True), (101, 0, False, False), (105, 10, True, True),
     (110, 10, False, True), (111, 10, False, False)],
)  # fmt: skip
def test_somebody_may_go_below_zero_as_far_as_the_owner_says(used, deficit, begins, goes_on):
    lab = Lab(grant())
    lab.used(ANN, used)
    assert (refused(lab, deficit) is None, refused(lab, deficit, running=True) is None) == (begins, goes_on)


def test_a_refusal_names_the_grant_and_when_it_begins_anew():
    lab = Lab(grant(seconds=5, period_us=DAY_US, expires_us=NOW_US + 3 * DAY_US))
    lab.used(ANN, 9)
    answer = refused(lab)
    assert answer.reason == "quota"
    assert ": 9.0 of 5.0 s used" in answer.failure.why
    assert "or wait until 1972-09-28 00:00 UTC" in answer.failure.fix
    assert "no admin" in refused(Lab()).failure.what


def test_what_runs_is_named_as_its_receipt_will():
    gpus = tuple(GpuOffer(f"GPU-{n}", model, 80_000, 80_000) for n, model in enumerate(("NVIDIA T4", "NVIDIA A100")))
    function = msgspec.structs.replace(needs(gpu=("A100:2", "T4")), app="train")
    assert what_runs(function, gpus) == What("train", "NVIDIA A100")
    assert what_runs(function, gpus[:1]) == What("train", "NVIDIA T4")
    assert what_runs(needs(gpu=("nonsense:x",)), gpus) == What("tests", "")


@pytest.mark.parametrize(
    ("gpu_class", "model", "fits"),
    [("A100", "2x NVIDIA A100-SXM4-80GB", True), ("A10", "NVIDIA A100", False), ("T4", "Tesla T4, A100", True),
     ("RTX 4070", "NVIDIA GeForce RTX 4070 Ti", False), ("a:b:c", "NVIDIA A100", False)],
)  # fmt: skip
def test_classes(gpu_class, model, fits):
    assert is_of(gpu_class, model) == fits


def test_weights_are_those_of_the_first_class_that_fits_and_else_one():
    weighs = weigher({"A100-80GB": 5, "A100": 4.5, "cpu": 0.1})
    models = ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA T4", "")
    assert [weighs(model) for model in models] == [5000, 4500, 1000, 100]
