"""A caller's books while the disk is slow: what is signed, kept and said when leases end before it has answered."""

import pytest
from tests.ledger.test_journal import CALLER, PROVIDER
from tests.meshnode.core.worlds import spec

from potluck.wire import function_id
from potluck.wire.lease import InputDone
from potluck_ledger.entries import Dispute, Receipt, Voucher, read_receipt, read_voucher, sign
from potluck_ledger.journal import Journal, verify
from potluck_node.books import VOUCHERS_WAITING_MAX, CallerBooks

S, NOW_US = 1_000_000, 1_800_000_000_000_000
FUNCTION = spec()


class Slow:
    """Does what is to be kept when it is told to."""

    def __init__(self, journal):
        self.journal, self.waiting = journal, []

    def keep(self, write, then):
        self.waiting.append((write, then))

    def answer(self):
        waiting, self.waiting = self.waiting, []
        problems = self.journal.together([write for write, _ in waiting])
        self.journal.count()
        for (_, then), problem in zip(waiting, problems, strict=True):
            then(problem)


class World:
    def __init__(self, folder):
        self.journal = Journal(folder / "journal", CALLER)
        self.disk, self.answers = Slow(self.journal), []
        self.books = CallerBooks(CALLER, self.journal, self.disk.keep, "lease", PROVIDER.peer, FUNCTION)
        # An input that has run for ten seconds.
        self.books.meter.sent(1, 1, b"x", NOW_US - 10 * S)
        self.books.meter.began(1, 1)

    def voucher(self, number, used_us):
        body = Voucher("lease", CALLER.peer, PROVIDER.peer, number, used_us, NOW_US)
        self.books.voucher(sign(PROVIDER, body).encode(), NOW_US, lambda *answer: self.answers.append(answer))

    def receipt(self):
        meter = self.books.meter.meter
        body = Receipt(
            "lease", CALLER.peer, PROVIDER.peer, function_id(FUNCTION), "f", FUNCTION.image, bytes(16), NOW_US,
            NOW_US, meter.run_us, 0, 0, meter.inputs, meter.work,
        )  # fmt: skip
        self.books.receipt(sign(PROVIDER, body).encode(), NOW_US, lambda *answer: self.answers.append(answer))

    def done(self, run_us):
        self.books.meter.came(InputDone(1, 1, run_us=run_us, payload=b"y"), NOW_US)

    def over(self):
        self.books.over(NOW_US, self.answers.append)

    def kept(self):
        return [entry.content for entry in verify(CALLER.peer, self.journal.records())]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.journal.close()


def test_nothing_is_answered_before_it_is_kept(world):
    world.voucher(1, 2 * S)
    assert world.answers == world.journal.held() == []
    world.disk.answer()
    ((signed, why),) = world.answers
    assert (read_voucher(signed).lease_us, why) == (2 * S, "")
    assert world.journal.held() == ["lease"]


def test_older_ones_and_too_many_are_refused_meanwhile(world):
    world.voucher(2, 2 * S)
    world.voucher(1, 1 * S)
    assert "older than the last" in world.answers[-1][1]
    for number in range(3, 2 + VOUCHERS_WAITING_MAX):
        world.voucher(number, 2 * S)
    assert len(world.answers) == 1
    world.voucher(99, 2 * S)
    assert "wait for the disk" in world.answers[-1][1]
    world.disk.answer()
    world.voucher(100, 3 * S)
    world.disk.answer()
    assert read_voucher(world.answers[-1][0]).number == 100


def test_a_lease_that_ends_before_its_voucher_is_kept_leaves_it_as_an_entry(world):
    world.voucher(1, 3 * S)
    world.over()
    world.disk.answer()
    (kept,) = world.kept()
    assert (type(kept), kept.lease_us) == (Voucher, 3 * S)
    assert world.journal.held() == []


def test_what_was_signed_and_did_not_pass_is_disputed(world):
    world.voucher(1, 10 * S + S // 2)
    world.done(10 * S)
    world.over()
    world.disk.answer()
    voucher, dispute = world.kept()
    assert (type(voucher), type(dispute)) == (Voucher, Dispute)
    assert dispute.signed_us == voucher.lease_us > dispute.claimed_us


def test_a_receipt_that_waits_stands_for_the_voucher_when_the_lease_is_over(world):
    world.voucher(1, 2 * S)
    world.done(9 * S)
    world.receipt()
    world.voucher(2, 9 * S)
    world.receipt()
    assert [why for _, why in world.answers] == [
        "the receipt of this lease is signed already", "a receipt of this lease is signed already"
    ]  # fmt: skip
    world.over()
    world.disk.answer()
    (kept,) = world.kept()
    assert isinstance(kept, Receipt)
    envelope, _ = read_receipt(world.answers[-2][0])
    assert envelope.signers == [PROVIDER.peer, CALLER.peer]
    assert world.journal.held() == []
    assert world.journal.accounts.totals() == (0, 9 * S)


def test_a_receipt_that_cannot_be_kept_is_not_signed_and_may_come_again(world):
    world.done(9 * S)
    world.receipt()
    world.journal.block("the disk is gone")
    world.disk.answer()
    assert world.answers == [(b"", "the disk is gone")]
    world.journal.blocked = ""
    world.receipt()
    world.disk.answer()
    assert len(world.kept()) == 1
