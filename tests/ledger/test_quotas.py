"""What is left of what admins granted: of users, groups and apps, by class and period; nothing counts twice."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.test_journal import receipt

from potluck_ledger.entries import Dispute, Grant, Membership, Transfer, Voucher, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.keys import PrivateKey
from potluck_ledger.quotas import DAY_US, PERIODS, SHARE_MAX, Quotas
from potluck_ledger.usage import HOUR_US, KEEP_HOURS, Running, Usage, What

ADMIN, ANN, BOB, GPU = (PrivateKey(bytes([number]) * 32) for number in range(1, 5))
NOW_US = 1000 * DAY_US
S = 1_000_000
CPU_ONLY = What("train", "")


def grant(name=ANN.peer, seconds=100, **changes):
    plain = Grant(ADMIN.peer, "lab", "user", name, "", seconds * S, 0, NOW_US - DAY_US, NOW_US + DAY_US, bytes(16))
    return msgspec.structs.replace(plain, **changes)


def member(who, **changes):
    plain = Membership(ADMIN.peer, "lab", "students", who.peer, NOW_US - DAY_US, NOW_US + DAY_US, bytes(16))
    return msgspec.structs.replace(plain, **changes)


class Lab:
    def __init__(self, *rules):
        self.usage = Usage()
        self.quotas = Quotas("lab", frozenset([ADMIN.peer]), self.usage, lambda wanted, model: wanted in model)
        for rule in rules:
            self.quotas.record(rule)

    def used(self, who, seconds, number=1, *, signed=True, by=GPU, **changes):
        fields = {"caller": who.peer, "provider": by.peer, "label": "train.f", "ended_us": NOW_US} | changes
        made = receipt(number, lease_us=seconds * S, busy_us=0, **fields)
        envelope = sign(by, made)
        self.usage.record(countersign(who, envelope) if signed else envelope, made)

    def left(self, who=ANN, what=CPU_ONLY, now_us=NOW_US):
        return self.quotas.left_us(who.peer, what, now_us) / S


def test_what_is_left_is_what_was_granted_less_what_both_signed():
    lab = Lab(grant())
    lab.used(ANN, 30, 1)
    lab.used(ANN, 30, 1)
    lab.used(ANN, 20, 2, by=BOB)
    lab.used(ANN, 40, 3, signed=False)
    lab.used(BOB, 9, 4)
    assert lab.left() == 50
    (standing,) = lab.quotas.standings(NOW_US)
    assert (standing.used_us, standing.left_us) == (50 * S, 50 * S)


def test_who_was_granted_nothing_is_below_zero_by_what_they_used():
    lab = Lab()
    assert lab.left() == 0
    lab.used(ANN, 30)
    assert lab.left() == -30
    assert lab.quotas.share(ANN.peer, NOW_US) == SHARE_MAX


@pytest.mark.parametrize(
    "changes", [{"admin": BOB.peer}, {"mesh": "other"}, {"expires_us": NOW_US}, {"starts_us": NOW_US + 1}]
)
def test_grants_of_others_elsewhere_or_at_another_time_are_nothing(changes):
    assert Lab(grant(**changes)).left() == 0


def test_the_latest_grant_replaces_and_ends():
    lab = Lab(grant(), grant(seconds=7, starts_us=NOW_US - 5))
    assert not lab.quotas.record(grant(seconds=70, starts_us=NOW_US - 6))
    assert lab.left() == 7
    lab.quotas.record(grant(seconds=0, starts_us=NOW_US - 1))
    assert lab.left() == 0


def test_a_class_is_apart():
    lab = Lab(grant(seconds=10), grant(seconds=50, gpu_class="A100"), grant(seconds=5, gpu_class="cpu"))
    lab.used(ANN, 20, gpu_model="2x NVIDIA A100")
    assert lab.left(what=What("train", "NVIDIA A100")) == 30
    assert lab.left(what=What("train", "NVIDIA H100")) == -10
    assert lab.left(what=CPU_ONLY) == 5


def test_grants_of_no_class_count_by_weight():
    lab = Lab(grant(seconds=100))
    lab.quotas.weighs = lambda model: 4000 if model else 250
    lab.used(ANN, 10, 1, gpu_model="A100")
    lab.used(ANN, 40, 2)
    assert lab.left() == 50


def test_a_group_shares():
    lab = Lab(grant("students", scope="group"), member(ANN), member(BOB))
    lab.used(ANN, 30, 1)
    lab.used(BOB, 30, 2)
    assert (lab.left(ANN), lab.left(BOB), lab.left(GPU)) == (40, 40, 0)
    lab.quotas.record(member(BOB, starts_us=NOW_US - 5, expires_us=NOW_US - 5))
    assert lab.left(BOB) == -30
    assert lab.quotas.groups(NOW_US) == {"students": [ANN.peer]}


def test_an_app_is_its_owners_alone():
    lab = Lab(grant(f"{ANN.peer}/train", scope="app"))
    lab.used(ANN, 30, 1)
    lab.used(ANN, 30, 2, label="other.f")
    assert lab.left(ANN) == 70
    assert lab.left(ANN, What("other", "")) < 0
    assert lab.left(BOB) == 0


def test_each_period_begins_anew():
    day = grant(period_us=PERIODS["day"], starts_us=NOW_US - 3 * DAY_US, expires_us=NOW_US + 9 * DAY_US)
    lab = Lab(day)
    lab.used(ANN, 60, 1, ended_us=NOW_US - 1)
    lab.used(ANN, 10, 2, ended_us=NOW_US)
    assert lab.left() == 90
    assert lab.left(now_us=NOW_US + DAY_US - 1) == 90
    assert lab.left(now_us=NOW_US + DAY_US) == 100


def test_running_leases_count_until_their_receipt_comes():
    lab = Lab(grant())
    lab.usage.running(GPU.peer, [Running("lease-1", ANN.peer, CPU_ONLY, 20 * S)])
    assert lab.left() == 80
    lab.used(ANN, 30, 1)
    lab.usage.running(GPU.peer, [Running("lease-1", ANN.peer, CPU_ONLY, 25 * S)])
    assert lab.left() == 70
    lab.usage.running(GPU.peer, [Running("lease-2", ANN.peer, CPU_ONLY, 5 * S)])
    lab.usage.gone(GPU.peer)
    assert lab.left() == 70


def test_who_signs_vouchers_alone_pays_for_the_class_that_was_used():
    lab = Lab(grant(seconds=50, gpu_class="A100"))
    voucher = Voucher("lease-1", ANN.peer, GPU.peer, 3, 20 * S, NOW_US)
    lab.usage.record(countersign(ANN, sign(GPU, voucher)), voucher)
    lab.used(ANN, 24, 1, signed=False, gpu_model="A100")
    assert lab.left(what=What("train", "A100")) == 30


def test_share_is_less_what_was_given():
    lab = Lab(grant(), grant(BOB.peer, 200))
    lab.used(ANN, 50, 1)
    lab.used(BOB, 50, 2)
    assert (lab.quotas.share(ANN.peer, NOW_US), lab.quotas.share(BOB.peer, NOW_US)) == (500, 250)
    lab.used(BOB, 40, 3, by=ANN)
    assert lab.quotas.share(ANN.peer, NOW_US) == 100
    lab.used(ANN, 100, 4)
    assert lab.quotas.share(ANN.peer, NOW_US) == 1100


TRANSFERS = st.lists(st.tuples(st.sampled_from([(ANN, BOB), (BOB, ANN), (GPU, ANN)]), st.integers(1, 200)), max_size=6)


@given(TRANSFERS, st.integers(0, 150), st.integers(0, 150))
def test_transfers_move_what_there_is_and_make_none(moves, by_ann, by_bob):
    """Also those of somebody who has nothing to give."""
    lab = Lab(grant(), grant(BOB.peer, 50))
    for number, ((giver, taker), seconds) in enumerate(moves):
        made = Transfer(giver.peer, taker.peer, seconds * S, NOW_US - 9 + number, bytes([number]) * 16)
        lab.usage.record(sign(giver, made), made)
    lab.used(ANN, by_ann, 1)
    lab.used(BOB, by_bob, 2)
    granted = {each.grant.name: each.granted_us for each in lab.quotas.standings(NOW_US)}
    assert sum(granted.values()) == 150 * S
    assert all(us >= 0 for us in granted.values())


def test_only_leases_and_transfers_say_something_and_old_ones_are_forgotten():
    lab = Lab(grant())
    dispute = Dispute(GPU.peer, ANN.peer, "lease-1", 9, 4, 7, bytes(32), "gone")
    lab.usage.record(sign(GPU, dispute), dispute)
    assert not lab.quotas.record(dispute)
    assert not lab.usage.callers()
    lab.used(ANN, 5)
    lab.usage.forget(NOW_US + KEEP_HOURS * HOUR_US)
    assert lab.left() == 95
    lab.usage.forget(NOW_US + (KEEP_HOURS + 1) * HOUR_US)
    assert lab.left() == 100
