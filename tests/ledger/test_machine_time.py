"""No GPU is counted for longer than it was taken, however many leases had it."""

from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.test_journal import CALLER, receipt

from potluck_ledger.machine_time import machine_us
from potluck_ledger.report import summed

S = 1_000_000


def lease(number, start, end, lease_s=None, gpu="GPU-1", **changes):
    lease_us = round((end - start if lease_s is None else lease_s) * S)
    times = {"started_us": start * S, "ended_us": end * S, "lease_us": lease_us, "busy_us": 0}
    return receipt(number, gpu=gpu, gpu_model="A100", **times, **changes)


def test_two_leases_that_overlap_on_one_gpu_share_it():
    both = [lease(1, 0, 10), lease(2, 5, 15)]
    assert machine_us(both) == {"lease-1": 7.5 * S, "lease-2": 7.5 * S}
    (line,) = summed(CALLER.peer, "gpu", [(each, True) for each in both])
    assert (line.used_us, line.gpu_us) == (20 * S, 15 * S)


def test_on_gpus_of_their_own_or_one_after_the_other_each_counts_in_full():
    assert machine_us([lease(1, 0, 10), lease(2, 5, 15, gpu="GPU-2")]) == {"lease-1": 10 * S, "lease-2": 10 * S}
    assert machine_us([lease(1, 0, 10), lease(2, 10, 15)]) == {"lease-1": 10 * S, "lease-2": 5 * S}


def test_leases_that_waited_most_of_the_time_fit_beside_each_other():
    assert machine_us([lease(1, 0, 10, 3), lease(2, 0, 10, 4)]) == {"lease-1": 3 * S, "lease-2": 4 * S}


def test_what_is_recorded_twice_or_has_no_gpu_does_not_count_again():
    assert machine_us([lease(1, 0, 10), lease(1, 0, 10), lease(2, 0, 10, gpu="")]) == {"lease-1": 10 * S}


def test_several_gpus_are_filled_evenly():
    assert machine_us([lease(1, 0, 10, 20, gpu="GPU-1,GPU-2"), lease(2, 0, 10)]) == {
        "lease-1": 15 * S,
        "lease-2": 5 * S,
    }
    assert machine_us([lease(1, 0, 10, 80, gpu="GPU-1+7")]) == {"lease-1": 80 * S}


LEASES = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50), st.floats(0, 1), st.sampled_from("AB")), max_size=8)


@given(LEASES)
def test_no_gpu_is_taken_for_longer_than_from_the_first_to_the_last(made):
    receipts = [
        lease(number, start, start + span, span * part, gpu=gpu) for number, (start, span, part, gpu) in enumerate(made)
    ]
    counted = machine_us(receipts)
    for gpu in "AB":
        mine = [each for each in receipts if each.gpu == gpu]
        taken = {second for each in mine for second in range(each.started_us // S, each.ended_us // S)}
        assert sum(counted.get(each.lease, 0) for each in mine) <= len(taken) * S + len(mine)
    assert all(counted.get(each.lease, 0) <= each.lease_us + 1 for each in receipts)
