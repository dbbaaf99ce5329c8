"""Who holds which GPU: by hand, and as a state machine that takes and releases at random."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from potluck_node.core.gpus import Gpu, GpuDesk

H100S = [Gpu(f"GPU-{n}", "NVIDIA H100 80GB HBM3", 81559, 81000) for n in range(2)]
T4 = Gpu("GPU-t4", "Tesla T4", 15360, 15000)
MACHINE = (*H100S, T4, Gpu("GPU-x", "NVIDIA A10G", 23028, 23000))
REQUESTS = (("any",), ("H100",), ("H100:2",), ("T4", "A10G"), ("any:>=20GB",), ("any:2GiB",), ("any:3",))


def desk(*gpus, share=False):
    made = GpuDesk(share)
    made.seen(gpus)
    return made


def uuids(hold):
    return [gpu.uuid for gpu in hold.gpus]


def test_the_smallest_that_fits_is_given_and_never_twice():
    gpus = desk(*H100S, T4)
    assert uuids(gpus.take("a", ("any",))) == ["GPU-t4"]
    assert uuids(gpus.take("b", ("any:>=40GB",))) == ["GPU-0"]
    assert uuids(gpus.take("c", ("A10G", "H100"))) == ["GPU-1"]
    assert gpus.take("d", ("any",)) is None
    assert gpus.why_not_now(("any",)) == "its GPUs are leased"
    gpus.release("b")
    assert uuids(gpus.take("d", ("any",))) == ["GPU-0"]


def test_one_holder_never_takes_twice():
    gpus = desk(*H100S)
    gpus.take("a", ("any",))
    with pytest.raises(ValueError, match="holds GPUs already"):
        gpus.take("a", ("any",))


def test_several_are_given_next_to_each_other():
    far = (("GPU-0", 50), ("GPU-1", 50), ("GPU-2", 10), ("GPU-3", 10))
    near = (("GPU-0", 10), ("GPU-1", 10), ("GPU-2", 50), ("GPU-3", 50))
    board = [Gpu(f"GPU-{n}", "NVIDIA A10G", 23028, near=near if n < 2 else far) for n in range(4)]
    gpus = desk(*board)
    gpus.take("a", ("A10G",))
    assert uuids(gpus.take("b", ("A10G:2",))) == ["GPU-2", "GPU-3"]


def test_what_the_owner_uses_waits_and_what_is_broken_never_comes():
    gpus = desk(replace(T4, state="used by the owner"), replace(H100S[0], state="has fallen off the bus"))
    assert gpus.take("a", ("any",)) is None
    assert (gpus.workers_max(("T4",)), gpus.workers_now(("T4",))) == (1, 0)
    assert not gpus.why_never(("T4",))
    assert gpus.why_not_now(("T4",)) == "a GPU is used by the owner"
    assert gpus.why_never(("H100",)) == "its NVIDIA H100 80GB HBM3 has fallen off the bus"
    assert "Tesla T4 (15360 MiB)" in gpus.why_never(("B200",))


def test_shares_are_lent_only_where_the_owner_allows_it_and_never_more_than_there_is():
    assert desk(T4).take("a", ("any:4GiB",)) is None
    assert "whole" in desk(T4).why_never(("any:4GiB",))
    gpus = desk(T4, share=True)
    assert [bool(gpus.take(name, ("any:7GiB",))) for name in "abc"] == [True, True, False]
    assert gpus.take("w", ("any",)) is None
    assert gpus.offers()[0].memory_free_mib == 15360 - 2 * 7168
    gpus.release("a")
    gpus.release("b")
    assert gpus.take("w", ("any",))
    assert gpus.take("s", ("any:1GiB",)) is None


def test_holders_hear_of_a_gpu_that_breaks_or_disappears():
    gpus = desk(*H100S, T4)
    gpus.take("a", ("H100:2",))
    gpus.take("b", ("T4",))
    assert gpus.seen([*H100S, T4]) == {}
    broken = gpus.seen([H100S[0], replace(H100S[1], state="has fallen off the bus")])
    assert broken["a"] == "its GPU NVIDIA H100 80GB HBM3 (GPU-1) has fallen off the bus"
    assert broken["b"].endswith("has disappeared from the machine")
    gpus.release("b")
    gpus.seen(H100S)
    assert [offer.state for offer in gpus.offers()] == ["leased", "leased"]
    assert [offer.state for offer in gpus.offers(idle={"a"})] == ["free", "free"]


class Allocation(RuleBasedStateMachine):
    """Whatever is taken, released, broken and mended: no GPU has two holders, and all that was released can be had."""

    def __init__(self):
        super().__init__()
        self.desk = desk(*MACHINE, share=True)
        self.held = {}
        self.count = 0

    @rule(requests=st.sampled_from(REQUESTS))
    def take(self, requests):
        self.count += 1
        name = str(self.count)
        now = self.desk.workers_now(requests)
        hold = self.desk.take(name, requests)
        assert bool(hold) == (now > 0)
        if hold:
            self.held[name] = hold

    @rule(data=st.data())
    def release(self, data):
        if self.held:
            name = data.draw(st.sampled_from(sorted(self.held)))
            self.desk.release(name)
            del self.held[name]

    @rule(states=st.lists(st.sampled_from(["free", "used by the owner", "is lost"]), min_size=4, max_size=4))
    def change(self, states):
        broken = self.desk.seen(replace(gpu, state=state) for gpu, state in zip(MACHINE, states, strict=True))
        lost = {gpu.uuid for gpu, state in zip(MACHINE, states, strict=True) if state == "is lost"}
        assert set(broken) == {name for name, hold in self.held.items() if lost & set(uuids(hold))}

    @invariant()
    def never_twice(self):
        for gpu in MACHINE:
            here = [hold for hold in self.held.values() if hold.has(gpu.uuid)]
            whole = [hold for hold in here if not hold.share_mib]
            assert not whole or len(here) == 1
            assert sum(hold.share_mib for hold in here) <= gpu.memory_mib

    def teardown(self):
        for name in self.held:
            self.desk.release(name)
        self.desk.seen(MACHINE)
        assert self.desk.workers_now(("any",)) == len(MACHINE)


TestAllocation = Allocation.TestCase
