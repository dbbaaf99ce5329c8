"""Vouchers: what is signed while a lease runs, and what neither side can do to the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from potluck_ledger.entries import Voucher, read_voucher, sign
from potluck_ledger.envelope import EnvelopeError, countersign, open_envelope
from potluck_ledger.keys import PrivateKey
from potluck_ledger.vouchers import (
    CLOCK_SLACK_US,
    OFFER_AFTER_US,
    STOP_AT_US,
    UNSIGNED_MAX_US,
    CallerVouchers,
    ProviderVouchers,
)

CALLER, PROVIDER, STRANGER = (PrivateKey(bytes([n]) * 32) for n in range(3))
S = 1_000_000


def both_sides():
    return ProviderVouchers("l", CALLER.peer, PROVIDER.peer), CallerVouchers("l", CALLER.peer, PROVIDER.peer)


def offered(voucher):
    return sign(PROVIDER, voucher).encode()


def countersigned(data, key=CALLER):
    return countersign(key, open_envelope(data, Voucher.KIND)).encode()


def test_a_voucher_is_offered_every_few_seconds_of_use_and_signed():
    provider, caller = both_sides()
    assert provider.reckon(OFFER_AFTER_US - 1, 5) is None
    voucher = provider.reckon(OFFER_AFTER_US, 5)
    assert provider.reckon(OFFER_AFTER_US + 1, 6) is None
    seen, why = caller.check(offered(voucher), OFFER_AFTER_US, 5)
    assert (seen, why) == (voucher, "")
    caller.sign(seen)
    assert provider.answered(countersigned(offered(voucher))) == ""
    assert provider.signed_us == OFFER_AFTER_US
    assert read_voucher(provider.envelope) == voucher


def test_a_caller_that_signs_nothing_is_stopped_in_time():
    provider, _ = both_sides()
    provider.reckon(OFFER_AFTER_US, 5)
    assert not provider.must_stop(STOP_AT_US - 1)
    assert provider.must_stop(STOP_AT_US)
    assert STOP_AT_US < UNSIGNED_MAX_US


def voucher(number=2, lease_us=2 * S, at_us=10, lease="l", caller=CALLER, provider=PROVIDER):
    return Voucher(lease, caller.peer, provider.peer, number, lease_us, at_us)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (voucher(lease_us=3 * S), "at most 2000000 µs passed here"),
        (voucher(number=1), "older"),
        (voucher(lease_us=S - 1), "older"),
        (voucher(at_us=1), "older"),
        (voucher(at_us=CLOCK_SLACK_US * 2), "time is not the time here"),
        (voucher(lease="other"), "another lease"),
        (voucher(caller=STRANGER), "another lease"),
    ],
)
def test_what_a_caller_does_not_sign(bad, why):
    _, caller = both_sides()
    caller.sign(voucher(1, S, 9))
    seen, objection = caller.check(offered(bad), 2 * S, 10)
    assert seen is None
    assert why in objection


def test_a_voucher_is_signed_by_its_provider():
    _, caller = both_sides()
    for data in (sign(STRANGER, voucher()).encode(), countersigned(offered(voucher())), b"nonsense"):
        assert caller.check(data, 9 * S, 10)[0] is None


def test_what_a_provider_does_not_take_for_a_signature():
    provider, _ = both_sides()
    mine = provider.reckon(2 * S, 10)
    other = voucher(mine.number, S, 10)
    for data in (
        offered(mine),
        countersigned(offered(mine), STRANGER),
        countersigned(offered(other)),
        b"nonsense",
    ):
        assert provider.answered(data)
    assert provider.signed_us == 0
    with pytest.raises(EnvelopeError):
        read_voucher(offered(mine))


@given(st.integers(1, 64), st.lists(st.integers(0, 3 * S), max_size=20))
def test_a_provider_looks_again_before_too_much_is_used(at_once, answers):
    """However many inputs run at once, and whatever the caller signs: never over the limit."""
    provider, _ = both_sides()
    used = 0
    for wait in [*answers, *[None] * 300]:
        used += -(-provider.left_us(used) // at_once) * at_once
        if provider.must_stop(used):
            break
        offer = provider.reckon(used, 5)
        if offer and wait is not None:
            provider.answered(countersigned(offered(offer)))
    assert used - provider.signed_us <= STOP_AT_US + at_once < UNSIGNED_MAX_US


class Cheats(RuleBasedStateMachine):
    """A provider that claims what it likes and a caller that signs when it likes, each against an honest other side:
    what is signed is never more than what was used, and what is used never much more than what is signed."""

    def __init__(self):
        super().__init__()
        self.provider, self.caller = both_sides()
        self.used, self.now, self.sent, self.stopped = 0, 1, [], False

    @precondition(lambda self: not self.stopped)
    @rule(more=st.integers(0, 900_000))
    def use(self, more):
        self.used += more
        self.now += more
        self.stopped = self.provider.must_stop(self.used)
        offer = None if self.stopped else self.provider.reckon(self.used, self.now)
        if offer:
            self.sent.append(offered(offer))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 50))
    def deliver_any_that_was_ever_sent(self, which):
        """Late, twice, out of order."""
        data = self.sent[which % len(self.sent)]
        seen, _ = self.caller.check(data, self.used, self.now)
        if seen:
            self.caller.sign(seen)
            self.provider.answered(countersigned(data))

    @rule(more=st.integers(1, 10**9), number=st.integers(1, 100))
    def overbill(self, more, number):
        claim = voucher(number, self.used + more, self.now)
        assert self.caller.check(offered(claim), self.used, self.now)[0] is None

    @invariant()
    def nobody_loses(self):
        owed = self.caller.last.lease_us if self.caller.last else 0
        assert self.provider.signed_us <= owed <= self.used
        assert self.used - self.provider.signed_us < UNSIGNED_MAX_US + 900_000


TestCheats = Cheats.TestCase
