"""Verification in the call core: replicas go to different peers, liars are found, every call ends."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.meshnode.core.test_calls import Caller
from tests.meshnode.core.worlds import dice, needs, offer, spec

from potluck.errors import ExecutionError, RefusedError
from potluck.wire import Failure, RemoteException, RetryPolicy
from potluck.wire.common import Web
from potluck.wire.lease import InputDone
from potluck.wire.offer import GpuOffer
from potluck.wire.verify import Canary, Verification
from potluck_node.core import events as ev
from potluck_node.core.apart import NOBODY_ELSE_US, networks
from potluck_node.core.calls import CallCore
from potluck_node.core.checking import LATE_MIN_US, OVERDUE_US
from potluck_node.core.levels import Levels

LIE, RIGHT = b"\xc1lie", b"\xc1right of "
BOOM = RemoteException("ValueError", "boom", "traceback")


def honest(payload, peer):
    return {"payload": RIGHT + payload}


def lies(payload, peer):
    return {"payload": LIE}


def lies_alone(payload, peer):
    return {"payload": LIE + peer.encode()}


def fails(payload, peer):
    return {"failure": Failure.of(ExecutionError("no room"))}


class Mesh(Caller):
    """A caller's core, and peers that answer as `peers` says; nobody is trusted but the owner's own."""

    def __init__(self, peers, *, rule=None, function=None, trust=(), seed=1, own=None, default="none"):
        super().__init__(*peers, function=function, own=own)
        self.behaviour = dict(peers)
        levels = Levels("us-us-us-us", trust or "none", stranger_verify=default)
        self.core = CallCore(self.book, dice(seed), lambda: own, levels.of)
        self.rule = rule
        self.runs = Counter()
        self.who = {}
        self.sent = []
        self.delivered, self.evidence, self.ended = {}, [], set()
        self.judge = None
        self.silent = set()
        self.refusing = set()
        # Bytes that get to peers behind relays.
        self.carries = {}
        self.on_send = lambda action: None

    def lease_of(self, number):
        return next(lease for lease in self.who if self.core.runs(lease, number))

    def open(self, inputs, name="c"):
        self.go(ev.CallOpened(name, self.function, verify=self.rule))
        for index in range(inputs):
            self.go(ev.InputAdded(name, index, b"%d" % index))
        self.go(ev.InputsEnded(name))

    def go(self, event):
        """Have an event taken, and do what follows until nothing does."""
        todo = list(self.send(event))
        while todo:
            todo += self.do(todo.pop(0))

    def do(self, action):
        if isinstance(action, ev.OpenLease):
            self.who[action.lease] = action.peer
            if action.peer in self.refusing:
                owes = Failure.of(RefusedError("It owes."))
                return self.send(ev.LeaseDenied(action.lease, "quota", owes, 1_000_000))
            return self.send(ev.LeaseAccepted(action.lease, 2, self.carries.get(action.peer)))
        if isinstance(action, ev.SendInput):
            peer = self.who[action.lease]
            self.runs[peer] += 1
            self.sent.append((peer, action.payload))
            self.on_send(action)
            if peer in self.silent:
                return self.send(ev.InputBegan(action.lease, action.input, "worker"))
            outcome = self.behaviour[peer](action.payload, peer)
            return self.send(ev.InputFinished(action.lease, InputDone(action.input, action.attempt, 1000, **outcome)))
        if isinstance(action, ev.AskJudge):
            return self.send(ev.ResultsJudged(action.call, action.case, *self.judge(action.payloads)))
        if isinstance(action, ev.Deliver):
            assert action.index not in self.delivered
            self.delivered[action.index] = action
        elif isinstance(action, ev.Judged):
            self.evidence.append(action.evidence)
        elif isinstance(action, ev.CallEnded):
            self.ended.add(action.call)
        return []

    def pass_time(self, duration_us):
        end = self.now_us + duration_us
        while self.core.wake_us is not None and self.core.wake_us <= end:
            self.now_us = max(self.now_us, self.core.wake_us)
            self.renew()
            self.go(ev.Tick())
        self.now_us = end

    def reputation(self, peer):
        return self.core.reputation.of(peer, self.now_us)


def met(mesh):
    """Whether the liar was among those who were asked."""
    mesh.open(12)
    return mesh.runs["bob"]


TWO_OF_THREE = Verification(2, 3)
THREE = {"ann": honest, "bob": honest, "cas": honest}


def test_each_input_runs_on_two_peers_and_on_a_third_only_when_they_disagree():
    mesh = Mesh(THREE, rule=TWO_OF_THREE)
    mesh.open(20)
    assert sum(mesh.runs.values()) == 40
    assert max(Counter(mesh.sent).values()) == 1, "never twice on one peer"
    assert {each.payload for each in mesh.delivered.values()} == {RIGHT + b"%d" % index for index in range(20)}
    assert mesh.ended == {"c"}


def test_a_liar_is_named_with_evidence_and_banned_at_its_second_lie():
    mesh = next(
        mesh for mesh in (Mesh(THREE | {"bob": lies}, rule=TWO_OF_THREE, seed=seed) for seed in range(20)) if met(mesh)
    )
    assert all(each.payload == RIGHT + b"%d" % index for index, each in mesh.delivered.items())
    assert len(mesh.delivered) == 12
    against = [vote for each in mesh.evidence for vote in each.votes if vote.verdict == "wrong"]
    assert {vote.peer for vote in against} == {"bob"}
    assert len(against) == 2
    assert all(vote.lease in mesh.who for vote in against)
    assert "lost 2 quorums" in mesh.core.reputation.banned("bob", mesh.now_us)
    before = mesh.runs["bob"]
    mesh.delivered.clear()
    mesh.open(10, "d")
    assert mesh.runs["bob"] == before
    mesh.silent = set(THREE)
    mesh.open(1, "e")
    assert any("bob: it lost 2 quorums" in line for line in mesh.core.would("e", mesh.now_us))


def test_with_two_peers_of_which_one_lies_nothing_is_delivered_and_the_call_ends_with_words():
    mesh = Mesh({"ann": honest, "bob": lies}, rule=TWO_OF_THREE)
    mesh.open(1)
    assert mesh.delivered == {}
    mesh.pass_time(NOBODY_ELSE_US + 3_000_000)
    failure = mesh.delivered[0].failure
    assert failure.kind == "verification"
    assert "too few peers" in failure.why
    assert mesh.ended == {"c"}


def test_a_peer_that_refuses_again_and_again_is_none():
    mesh = Mesh({"ann": honest, "bob": lies, "cas": honest}, rule=TWO_OF_THREE)
    mesh.refusing = {"cas"}
    mesh.open(1)
    mesh.pass_time(NOBODY_ELSE_US + 60_000_000)
    assert "It owes" in mesh.delivered[0].failure.why
    assert mesh.ended == {"c"}


def test_the_owners_own_machine_decides_alone():
    mesh = Mesh(THREE, rule=TWO_OF_THREE, trust=("ann", "bob", "cas"))
    mesh.open(10)
    assert sum(mesh.runs.values()) == 10


def test_without_a_word_of_the_function_the_setting_counts():
    mesh = Mesh(THREE, default="quorum:2of3")
    mesh.core.checking.default = Verification(2, 3)
    mesh.open(10)
    assert sum(mesh.runs.values()) == 20


@pytest.mark.parametrize("change", [{"generator": True}, {"web": Web("asgi", "site")}])
def test_what_streams_is_not_verified(change):
    mesh = Mesh(THREE, function=spec(**change))
    mesh.core.checking.default = Verification(2, 3)
    mesh.open(4)
    assert sum(mesh.runs.values()) == 4


def test_adaptive_checks_less_and_less_and_always_again_after_a_lie():
    mesh = Mesh(THREE, rule=Verification(2, 5, adaptive=True))
    mesh.open(1000)
    assert len(mesh.delivered) == 1000
    assert 1010 < sum(mesh.runs.values()) < 1120
    assert not any(each.payload is None for each in mesh.delivered.values())


def test_canaries_are_not_delivered_and_who_fails_one_is_banned_at_once():
    canaries = (Canary(b"known", RIGHT + b"known"),)
    rule = Verification(1, 1, canary_milli=200, canaries=canaries)
    mesh = Mesh({"ann": honest, "bob": lambda payload, peer: lies(payload, peer)}, rule=rule)
    mesh.open(60)
    assert sorted(mesh.delivered) == list(range(60))
    assert "canary" in mesh.core.reputation.banned("bob", mesh.now_us)
    assert mesh.core.reputation.banned("ann", mesh.now_us) == ""
    assert {each.kind for each in mesh.evidence} == {"canary"}
    assert mesh.ended == {"c"}


def test_no_peer_is_sent_a_canary_twice_and_none_can_tell_it_by_its_number():
    canaries = tuple(Canary(b"known %d" % at, RIGHT + b"known %d" % at) for at in range(3))
    mesh = Mesh(THREE, rule=Verification(1, 1, canary_milli=500, canaries=canaries))
    told = []
    mesh.on_send = lambda action: told.append((action.payload, mesh.core.place_of(action.input)))
    mesh.open(100)
    sent = Counter(each for each in mesh.sent if each[1].startswith(b"known"))
    assert sent
    assert max(sent.values()) == 1
    assert mesh.ended == {"c"}
    numbers = [number for _, (_, number) in told]
    assert len(set(numbers)) == len(numbers) == 100 + sum(sent.values())
    assert all(number > 0 for number in numbers)


def test_what_replicas_print_is_shown_once():
    mesh = Mesh(THREE, rule=TWO_OF_THREE)
    mesh.silent = set(THREE)
    numbers = []
    mesh.on_send = lambda action: numbers.append(action.input)
    mesh.open(1)
    first = numbers[0]
    assert mesh.core.shown_of(first) == ("c", 0)
    mesh.go(ev.InputFinished(mesh.lease_of(first), InputDone(first, 1, 1000, payload=RIGHT + b"0")))
    assert len(numbers) == 2
    assert mesh.core.shown_of(numbers[1]) is None


def test_a_canary_that_nobody_answers_holds_up_no_call_for_long():
    rule = Verification(1, 1, canary_milli=1000, canaries=(Canary(b"known", RIGHT + b"known"),))
    mesh = Mesh({"ann": honest}, rule=rule)

    def hangs(payload, peer):
        mesh.silent.add(peer)
        return honest(payload, peer)

    mesh.behaviour["ann"] = hangs
    mesh.open(1)
    assert (list(mesh.delivered), mesh.ended) == ([0], set())
    mesh.pass_time(LATE_MIN_US + 1)
    assert mesh.ended == {"c"}


def test_a_canary_that_only_trusted_peers_could_run_is_dropped():
    rule = Verification(1, 1, canary_milli=1000, canaries=(Canary(b"known", RIGHT + b"known"),))
    mesh = Mesh({"ann": honest}, rule=rule, trust=("ann",))
    mesh.open(5)
    assert (mesh.runs["ann"], mesh.ended) == (5, {"c"})


def test_the_program_judges_what_differs_byte_for_byte():
    def rounds(payload, peer):
        return {"payload": RIGHT + payload + peer.encode()}

    mesh = Mesh(dict.fromkeys("abc", rounds), rule=replace(TWO_OF_THREE, judged=True))
    mesh.judge = lambda payloads: (0, None)
    mesh.open(5)
    assert sum(mesh.runs.values()) == 10
    assert all(vote.verdict == "right" for each in mesh.evidence for vote in each.votes)


def test_a_check_that_raises_fails_the_input():
    mesh = Mesh(dict.fromkeys("abc", lies_alone), rule=replace(TWO_OF_THREE, judged=True))
    mesh.judge = lambda payloads: (-1, Failure.of(ExecutionError("check raised")))
    mesh.open(1)
    assert mesh.delivered[0].failure.what == "check raised"
    assert mesh.ended == {"c"}


def test_an_exception_on_which_peers_agree_is_retried_as_the_function_says():
    raised = []

    def raises_twice(payload, peer):
        raised.append(peer)
        return {"exception": BOOM} if len(raised) <= 2 else honest(payload, peer)

    function = spec(retries=RetryPolicy(1, 1_000_000))
    mesh = Mesh(dict.fromkeys(("ann", "bob", "cas"), raises_twice), rule=TWO_OF_THREE, function=function)
    mesh.open(1)
    assert mesh.delivered == {}
    mesh.pass_time(3_000_000)
    assert mesh.delivered[0].payload == RIGHT + b"0"
    assert mesh.ended == {"c"}


def test_a_peer_that_dies_has_not_voted_and_its_replica_goes_on_elsewhere():
    mesh = Mesh(THREE, rule=TWO_OF_THREE)
    mesh.silent = {"ann", "bob", "cas"}
    mesh.open(1)
    mesh.silent = set()
    (lease,) = [lease for lease in mesh.who if mesh.core.runs(lease, 2)]
    mesh.go(ev.LeaseLost(lease, "unplugged"))
    assert mesh.delivered[0].payload == RIGHT + b"0"


def test_who_lets_an_input_hang_is_left_and_the_call_goes_on_without_it():
    mesh = Mesh(THREE, rule=TWO_OF_THREE)
    mesh.open(1, "warm")
    mesh.delivered.clear()
    asked = mesh.sent[0][0]
    mesh.silent = {asked}
    mesh.open(1)
    mesh.pass_time(2 * mesh.function.timeout_us + 3 * OVERDUE_US)
    assert mesh.delivered[0].payload == RIGHT + b"0"
    assert mesh.ended == {"warm", "c"}
    assert mesh.core.reputation.banned(asked, mesh.now_us) == "", "it is no liar"


def test_cancelling_ends_all_replicas():
    mesh = Mesh(THREE, rule=TWO_OF_THREE)
    mesh.silent = set(THREE)
    mesh.open(3)
    held = [each for each in mesh.core.leases() if each[3]]
    mesh.send(ev.CallCancelled("c", "enough"))
    assert len(mesh.all(ev.AbortInput)) == sum(each[3] for each in held)
    mesh.silent = set()
    mesh.rule = None
    mesh.open(1, "d")
    assert list(mesh.delivered) == [0]


def test_replicas_go_to_other_networks_where_there_are_some():
    mesh = Mesh(dict.fromkeys("abcd", honest), rule=TWO_OF_THREE)
    nets = {"a": "192.0.2.1", "b": "192.0.2.77", "c": "192.0.2.130", "d": "198.51.100.1"}
    for peer, ip in nets.items():
        mesh.book.offers[peer] = replace(mesh.book.offers[peer], addresses=(f"/ip4/{ip}/tcp/1",))
    mesh.open(1)
    assert {peer for peer, _ in mesh.sent} & {"d"}


def test_networks_are_read_from_addresses_and_nonsense_is_none():
    found = networks(
        offer(
            "a",
            addresses=("/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.9/tcp/1", "/ip6/2001:db8:1:2::3/tcp/1", "x", "/ip4/a/b"),
        )
    )
    assert found == {"192.0.2.0/24", "2001:db8:1::/48"}


def test_floats_are_compared_on_one_model_of_gpu():
    function = needs(gpu=("any",))
    mesh = Mesh(dict.fromkeys("abc", honest), rule=replace(TWO_OF_THREE, same_gpu=True), function=function)
    for peer, model in (("a", "NVIDIA L4"), ("b", "NVIDIA A10"), ("c", "NVIDIA L4")):
        gpu = GpuOffer(f"GPU-{peer}", model, 24_000, 24_000)
        mesh.book.offers[peer] = replace(mesh.book.offers[peer], gpus=(gpu,))
    mesh.renew = lambda: None
    for seed in range(6):
        mesh.open(1, f"call {seed}")
        mesh.delivered.clear()
    by_input = [{peer for peer, _ in mesh.sent[at : at + 2]} for at in range(0, len(mesh.sent), 2)]
    assert {"a", "c"} in by_input or {"b"} in by_input
    assert not any({"b"} < peers for peers in by_input)


def test_the_cost_is_told():
    mesh = Mesh(THREE | {"bob": lies}, rule=TWO_OF_THREE)
    mesh.silent = {"cas"}
    mesh.open(10)
    texts = [function.replicas.text() for function in mesh.core._functions.values()]
    mesh.core.handle(ev.Tick(), mesh.now_us)
    assert all("replicas" in text and "x GPU seconds" in text for text in texts if text)


BEHAVIOURS = st.sampled_from([honest, lies, lies_alone, fails])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_lie_of_fewer_than_the_quorum_is_delivered_and_every_call_ends(data):
    needed = data.draw(st.integers(2, 4), "needed")
    most = data.draw(st.integers(needed, 7), "most")
    behaviours = data.draw(st.lists(BEHAVIOURS, min_size=2, max_size=8), "peers")
    colluding = [at for at, each in enumerate(behaviours) if each is lies]
    for at in colluding[needed - 1 :]:
        behaviours[at] = honest
    mesh = Mesh({f"p{at}": each for at, each in enumerate(behaviours)}, rule=Verification(needed, most))
    mesh.open(data.draw(st.integers(1, 12), "inputs"))
    mesh.pass_time(NOBODY_ELSE_US * 3)
    assert mesh.ended == {"c"}, "every call ends"
    for index, each in mesh.delivered.items():
        assert each.payload in (None, RIGHT + b"%d" % index), "no lie is delivered"
    for evidence in mesh.evidence:
        for vote in evidence.votes:
            assert vote.verdict != "wrong" or mesh.behaviour[vote.peer] is not honest
    assert not any(lease[3] for lease in mesh.core.leases()), "nothing is left running"
    assert all(not function.cases for function in mesh.core._functions.values())


@pytest.mark.parametrize("seed", range(6))
def test_replicas_that_are_too_large_for_a_relay_go_to_others(seed):
    mesh = Mesh(THREE, rule=TWO_OF_THREE, seed=seed)
    mesh.carries = {"bob": 0}
    mesh.open(5)
    mesh.pass_time(5_000_000)
    assert len(mesh.delivered) == 5
    assert mesh.runs == Counter(ann=5, cas=5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("away", "kind"), [({"ann": 0, "bob": 0}, "verification"), ({"ann": 0, "bob": 0, "cas": 0}, "no-peer")]
)
def test_replicas_that_get_to_too_few_are_not_waited_for(seed, away, kind):
    mesh = Mesh(THREE, rule=TWO_OF_THREE, seed=seed)
    mesh.carries = away
    mesh.open(2)
    mesh.pass_time(2 * NOBODY_ELSE_US)
    assert [each.failure.kind for each in mesh.delivered.values()] == [kind] * 2
    assert mesh.ended == {"c"}
