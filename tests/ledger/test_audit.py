"""What an audit names, and what it leaves alone."""

import pytest
from tests.ledger.test_journal import receipt

from potluck_ledger.audit import WASH_MIN_US, audit
from potluck_ledger.entries import Dispute, Entry, Receipt, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.journal import VerifiedEntry
from potluck_ledger.keys import PrivateKey

ANN, BOB, CY, DEE, EVE = KEYS = [PrivateKey(bytes([n]) * 32) for n in range(5)]


def entry(content, *signers):
    envelope = sign(signers[0], content)
    for key in signers[1:]:
        envelope = countersign(key, envelope)
    return VerifiedEntry(Entry(1, bytes(32), 1, bytes(32)), envelope, content)


def used(caller, provider, seconds, inputs=10, number=[0], **changes):  # noqa: B006 - counts on purpose
    number[0] += 1
    body = receipt(
        number[0], caller=caller.peer, provider=provider.peer, lease_us=int(seconds * 1e6), busy_us=0, inputs=inputs,
        **changes,
    )  # fmt: skip
    return entry(body, provider, caller)


def kinds(*journals):
    return [(finding.kind, finding.text) for finding in audit(journals)]


def test_honest_journals_show_nothing():
    ours = [used(ANN, provider, seconds) for provider, seconds in ((BOB, 10), (CY, 12), (DEE, 25))]
    theirs = {key: [each for each in ours if each.receipt.provider == key.peer] for key in (BOB, CY, DEE)}
    assert kinds((ANN.peer, ours), *((key.peer, entries) for key, entries in theirs.items())) == []


@pytest.mark.parametrize(("factor", "found"), [(2.9, 0), (3.1, 1)])
def test_who_bills_much_more_than_others_for_the_same_is_named(factor, found):
    ours = [used(ANN, BOB, 10), used(ANN, CY, 10), used(ANN, DEE, 10 * factor)]
    findings = kinds((ANN.peer, ours))
    assert len(findings) == found
    assert all(kind == "outlier" and DEE.peer in text for kind, text in findings)


def test_another_gpu_another_function_and_a_few_inputs_are_no_outliers():
    ours = [
        used(ANN, BOB, 10),
        used(ANN, CY, 10),
        used(ANN, DEE, 100, gpu_model="T4"),
        used(ANN, DEE, 100, function="ab" * 16),
        used(ANN, EVE, 100, inputs=2),
    ]
    assert kinds((ANN.peer, ours)) == []


def test_two_that_work_for_each_other_alone_are_named():
    much = WASH_MIN_US / 1e6 + 1
    there, back = used(ANN, BOB, much), used(BOB, ANN, much)
    ((kind, text),) = kinds((ANN.peer, [there, back]), (BOB.peer, [there, back]))
    assert kind == "wash"
    assert ANN.peer in text
    assert BOB.peer in text
    # Friends who also help others, much.
    others = [used(CY, ANN, much), used(CY, BOB, much)]
    assert kinds((ANN.peer, [there, back, others[0]]), (BOB.peer, [there, back, others[1]])) == []


def test_three_that_work_in_a_circle_are_named():
    much = WASH_MIN_US / 1e6 + 1
    circle = [used(ANN, BOB, much), used(BOB, CY, much), used(CY, ANN, much)]
    other = used(EVE, DEE, much)
    ((kind, text),) = kinds((ANN.peer, [*circle, other]))
    assert kind == "wash"
    assert all(key.peer in text for key in (ANN, BOB, CY))
    # One of them gives to others as well; and where there is nobody else, it is a mesh.
    assert kinds((ANN.peer, [*circle, other, used(EVE, ANN, much)])) == []
    assert kinds((ANN.peer, circle)) == []


@pytest.mark.parametrize(("seconds", "found"), [(14, 0), (16, 1)])
def test_of_many_that_are_alike_who_bills_half_as_much_again_is_named(seconds, found):
    others = [PrivateKey(bytes([50 + number]) * 32) for number in range(6)]
    ours = [used(ANN, other, 10 + number / 100) for number, other in enumerate(others)]
    findings = kinds((ANN.peer, [*ours, used(ANN, DEE, seconds)]))
    assert [kind for kind, text in findings if DEE.peer in text] == ["outlier"] * found
    # Not where the others differ much themselves.
    ours = [used(ANN, other, 4 + 3 * number) for number, other in enumerate(others)]
    assert kinds((ANN.peer, [*ours, used(ANN, DEE, seconds + 4)])) == []


def test_a_lease_with_two_receipts_is_named_and_leases_of_others_are_not_hidden():
    one = used(ANN, BOB, 10, lease="l")
    twice = used(ANN, BOB, 10, lease="l", nonce=bytes([1]) * 16)
    ((kind, text),) = kinds((ANN.peer, [one, twice]))
    assert kind == "double"
    assert "2 receipts" in text
    # Cy, who has a lease of that name, hides nothing.
    ours = [used(CY, BOB, 1, lease="dear"), used(ANN, BOB, 10), used(ANN, CY, 10), used(ANN, DEE, 90, lease="dear")]
    assert [kind for kind, _ in kinds((ANN.peer, ours))] == ["outlier"]


def test_disputes_are_named_until_there_is_a_receipt():
    dispute = Dispute(BOB.peer, ANN.peer, "lease-9000", 5_000_000, 2_000_000, 1, bytes(32), "gone")
    mine = entry(dispute, BOB)
    ((kind, text),) = kinds((BOB.peer, [mine]))
    assert kind == "dispute"
    assert "5.000 s were used; 2.000 s are signed" in text
    settled = used(ANN, BOB, 5, lease="lease-9000")
    assert kinds((BOB.peer, [mine, settled]), (ANN.peer, [settled])) == []


def test_two_that_do_not_agree_are_named():
    one = used(ANN, BOB, 5)
    ((kind, text),) = kinds((ANN.peer, [one]), (BOB.peer, []))
    assert kind == "disagreement"
    assert isinstance(one.receipt, Receipt)
    assert one.receipt.lease in text


def test_nothing_is_said_that_the_hidden_rest_of_a_journal_could_answer():
    """Bob and Cy show Ann what is about her: what they gave each other, and what others got, is not to be seen."""
    much = WASH_MIN_US / 1e6 + 1
    there, back, elsewhere = used(ANN, BOB, much), used(BOB, ANN, much), used(BOB, DEE, 5)
    shown = [(ANN.peer, [there, back]), (BOB.peer, [there, back]), (DEE.peer, [elsewhere])]
    assert [each.kind for each in audit(shown)] == ["disagreement", "wash"]
    assert audit(shown, {BOB.peer: ANN.peer}) == []
    # What it should show, it is missed for.
    (finding,) = audit([(ANN.peer, [there]), (BOB.peer, [])], {BOB.peer: ANN.peer})
    assert (finding.kind, f"only {ANN.peer} has it" in finding.text) == ("disagreement", True)
