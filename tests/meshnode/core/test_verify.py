"""One input and the answers of several peers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck.errors import ExecutionError
from potluck.wire import Failure, RemoteException
from potluck.wire.lease import InputDone
from potluck.wire.verify import Verification
from potluck_node.core.verify import Case, Decided, Judge, More, Undecided, answer_of

OOM = Failure("resource-exceeded", "out of memory")


def answer(peer, said, believed=False):
    """An answer of bytes, an exception, or a failure."""
    kind = {bytes: "payload", RemoteException: "exception", Failure: "failure"}[type(said)]
    return answer_of(peer, f"lease of {peer}", InputDone(1, 1, 100, **{kind: said}), believed)


class Asked:
    """A case whose replicas are always sent, to peers named a, b, c."""

    def __init__(self, expected=b"", **rule):
        self.case = Case(1, Verification(**rule), b"input", expected)
        self.case.numbers = {1}
        self.steps = []

    def said(self, peer, said, **how):
        self.case.numbers and self.case.numbers.pop()
        return self.took(self.case.answered(answer(peer, said, how.pop("believed", False)), **how))

    def judged(self, agrees):
        return self.took(self.case.judged(agrees))

    def took(self, steps):
        for step in steps:
            if isinstance(step, More):
                self.case.numbers |= {100 + len(self.case.numbers) + at for at in range(step.replicas)}
        self.steps = steps
        return steps

    @property
    def only(self):
        (step,) = self.steps
        return step


def test_two_that_agree_are_enough_and_a_third_is_never_asked():
    asked = Asked()
    assert asked.said("a", b"4") == [More(1)]
    asked.said("b", b"4")
    assert asked.only.answer.done.payload == b"4"
    assert asked.only.verdicts == {"a": "right", "b": "right"}


def test_a_third_decides_between_two_and_the_liar_is_named():
    asked = Asked()
    asked.said("a", b"4")
    assert asked.said("b", b"5") == [More(1)]
    asked.said("c", b"4")
    assert asked.only.answer.done.payload == b"4"
    assert asked.only.verdicts == {"a": "right", "b": "wrong", "c": "right"}


def test_three_different_ones_are_an_error_and_prove_nothing():
    asked = Asked()
    for peer, said in zip("abc", (b"4", b"5", b"6"), strict=True):
        asked.said(peer, said)
    assert isinstance(asked.only, Undecided)
    assert set(asked.only.verdicts.values()) == {"undecided"}
    assert asked.said("d", b"4") == []


def test_nobody_votes_twice():
    asked = Asked()
    asked.said("a", b"4")
    assert asked.said("a", b"4") == []


def test_exceptions_are_results_whatever_their_tracebacks_say():
    asked = Asked()
    asked.said("a", RemoteException("ValueError", "no", "here", b"", b"\xc1\x90"))
    asked.said("b", RemoteException("ValueError", "no", "there", b"", b"\xc1\x90"))
    assert asked.only.answer.done.exception.message == "no"


def test_who_ran_out_of_memory_did_not_lie():
    asked = Asked()
    asked.said("a", OOM)
    asked.said("b", b"4")
    asked.said("c", b"4")
    assert asked.only.verdicts == {"a": "undecided", "b": "right", "c": "right"}
    both = Asked()
    both.said("a", OOM)
    both.said("b", OOM)
    assert (both.only.answer.done.failure, set(both.only.verdicts.values())) == (OOM, {"undecided"})


def test_what_the_owner_trusts_decides_at_once():
    asked = Asked(needed=3, most=5)
    asked.said("a", b"5")
    asked.said("us", b"4", believed=True)
    assert asked.only.answer.done.payload == b"4"
    assert asked.only.verdicts["a"] == "wrong"


def test_results_whose_bytes_differ_are_judged_by_the_caller():
    asked = Asked(judged=True)
    asked.said("a", b"4.0")
    asked.said("b", b"4.1")
    assert asked.only == Judge((b"input", b"4.1", b"4.0"))
    asked.judged(0)
    assert asked.only.verdicts == {"a": "right", "b": "right"}


def test_one_judgement_after_the_other_while_answers_go_on_coming():
    asked = Asked(judged=True, needed=3, most=4)
    asked.case.numbers = {1, 2, 3, 4}
    asked.said("a", b"4.0")
    asked.said("b", b"5.0")
    assert asked.said("c", b"4.1") == []
    assert asked.said("d", b"4.1") == []
    assert asked.judged(-1) == [Judge((b"input", b"4.1", b"4.0", b"5.0"))]
    asked.judged(0)
    assert asked.only.verdicts == {"a": "right", "b": "wrong", "c": "right", "d": "right"}


def test_a_check_of_one_result_needs_no_second_peer():
    asked = Asked(needed=1, judged=True, single=True)
    assert asked.said("a", b"5") == [Judge((b"input", b"5"))]
    assert asked.judged(-1) == [More(1)]
    assert asked.said("b", b"5") == [More(1)]
    asked.said("c", b"4")
    asked.judged(0)
    assert asked.only.answer.done.payload == b"4"
    assert asked.only.verdicts == {"a": "wrong", "b": "wrong", "c": "right"}


def test_an_exception_cannot_be_checked_alone():
    asked = Asked(needed=1, judged=True, single=True)
    assert asked.said("a", RemoteException("ValueError", "no", "")) == [More(1)]
    asked.said("b", b"4")
    asked.judged(0)
    assert asked.only.verdicts == {"a": "wrong", "b": "right"}


def test_whose_record_is_good_passes_unchecked():
    asked = Asked(adaptive=True, most=5)
    asked.said("a", b"4", passes=True)
    assert isinstance(asked.only, Decided)
    assert not asked.only.checked
    strict = Asked(adaptive=True, most=5)
    assert strict.said("a", b"4") == [More(1)]


@pytest.mark.parametrize(("said", "verdict"), [(b"49", "right"), (b"48", "wrong"), (OOM, "undecided")])
def test_a_known_answer_is_known(said, verdict):
    asked = Asked(expected=b"49")
    asked.said("a", said)
    assert asked.only.verdicts == {"a": verdict}


def test_a_known_answer_may_differ_in_its_bytes():
    asked = Asked(expected=b"49.0", judged=True)
    assert asked.said("a", b"49.1") == [Judge((b"input", b"49.1", b"49.0"))]
    asked.judged(0)
    assert asked.only.verdicts == {"a": "right"}


def test_replicas_that_are_lost_again_and_again_count():
    asked = Asked()
    for _ in range(3):
        asked.case.numbers.clear()
        asked.took(asked.case.gave_up())
    assert isinstance(asked.only, Undecided)


FAULTS = st.sampled_from(["honest", "colluding", "alone", "failing", "raising"])


@given(st.data())
def test_liars_who_are_fewer_than_the_quorum_never_win_and_every_case_ends(data):
    needed = data.draw(st.integers(2, 5))
    most = data.draw(st.integers(needed, 9))
    peers = data.draw(st.lists(FAULTS, min_size=most, max_size=most))
    colluding = [at for at, fault in enumerate(peers) if fault == "colluding"]
    for at in colluding[needed - 1 :]:
        peers[at] = "honest"
    asked = Asked(needed=needed, most=most, judged=data.draw(st.booleans()))
    bytes_differ = data.draw(st.booleans())
    forms = {}
    for at, fault in enumerate(peers):
        if asked.case.over:
            break
        own = b"honest %d" % at if bytes_differ and asked.case.rule.judged else b"honest"
        said = {
            "honest": own,
            "colluding": b"lie",
            "alone": b"lie %d" % at,
            "failing": OOM,
            "raising": RemoteException("ValueError", str(at), ""),
        }[fault]
        forms[at] = said
        asked.said(str(at), said)
        while any(isinstance(step, Judge) for step in asked.steps):
            new, *others = next(step for step in asked.steps if isinstance(step, Judge)).payloads[1:]
            same = [at for at, each in enumerate(others) if each.startswith(b"honest") and new.startswith(b"honest")]
            asked.judged(same[0] if same else others.index(new) if new in others else -1)
    assert asked.case.over, "every case ends"
    ended = asked.steps[-1]
    if isinstance(ended, Decided) and ended.answer.done.payload is not None:
        assert ended.answer.done.payload.startswith(b"honest")
        wrong = [at for at, verdict in ended.verdicts.items() if verdict == "wrong"]
        assert all(peers[int(at)] != "honest" for at in wrong), "nobody honest is blamed"
    honest_first = [at for at in range(most) if peers[at] == "honest"]
    if len(honest_first) >= needed:
        assert isinstance(ended, Decided)


def test_a_failure_without_words_is_one():
    assert answer_of("a", "l", InputDone(1, 1, 0), False).kind == "failed"
    assert answer("a", Failure.of(ExecutionError("x"))).digest == "execution"
