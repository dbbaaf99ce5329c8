import pytest
from msgspec.structs import replace
from tests.meshnode.core.worlds import NOW_US, dice, needs, offer, spec

from potluck.errors import ImageImportError, RefusedError
from potluck.wire import Failure, RemoteException, RetryPolicy
from potluck.wire.lease import InputDone, InputItem
from potluck_node.core import bans, hiring
from potluck_node.core import calls as limits
from potluck_node.core import events as ev
from potluck_node.core.calls import CallCore
from potluck_node.core.levels import Levels
from potluck_node.core.offers import OFFER_LIFE_US, OfferBook

BUSY = Failure.of(RefusedError("busy"))
BOOM = RemoteException("ValueError", "boom", "traceback")


class Caller:
    """A caller's core with a clock and shorthand."""

    def __init__(self, *peers, function=None, own=None):
        self.book = OfferBook("local", "us-us-us-us")
        self.now_us = NOW_US
        self.peers = list(peers)
        self.renew()
        self.core = CallCore(self.book, dice(), lambda: own)
        self.function = function or spec()
        self.actions = []

    def renew(self):
        for peer in self.peers:
            times = {"issued_us": self.now_us, "expires_us": self.now_us + OFFER_LIFE_US}
            self.book.add(offer(peer, sequence=self.now_us, **times), self.now_us)

    def send(self, event):
        self.actions = self.core.handle(event, self.now_us)
        return self.actions

    def wait(self, duration_us):
        """Let time pass, ticking whenever the core asked for it."""
        end, seen = self.now_us + duration_us, []
        while self.core.wake_us is not None and self.core.wake_us <= end:
            self.now_us = max(self.now_us, self.core.wake_us)
            self.renew()
            seen += self.send(ev.Tick())
        self.now_us = end
        self.actions = seen
        return seen

    def call(self, inputs=1, name="c", ended=True):
        seen = self.send(ev.CallOpened(name, self.function))
        for index in range(inputs):
            seen = seen + self.send(ev.InputAdded(name, index, b"payload %d" % index))
        if ended:
            seen = seen + self.send(ev.InputsEnded(name))
        self.actions = seen
        return seen

    def only(self, kind):
        (found,) = self.all(kind)
        return found

    def all(self, kind):
        return [action for action in self.actions if isinstance(action, kind)]

    def lease(self, slots=1, inputs=1):
        """Open a call and have its first lease granted."""
        self.call(inputs)
        lease = self.all(ev.OpenLease)[0].lease
        self.send(ev.LeaseAccepted(lease, slots))
        return lease

    def finish(self, lease, sent, **outcome):
        outcome = outcome or {"payload": b"result"}
        done = InputDone(sent.input, sent.attempt, run_us=outcome.pop("run_us", 100_000), **outcome)
        return self.send(ev.InputFinished(lease, done))


def wakes(caller, duration_us):
    """When the core is woken within this time, at its own wish."""
    end, times = caller.now_us + duration_us, []
    while caller.core.wake_us is not None and caller.core.wake_us <= end:
        caller.now_us = caller.core.wake_us
        caller.renew()
        caller.send(ev.Tick())
        times.append(caller.now_us)
    return times


def test_a_call_is_placed_sent_delivered_and_ended():
    caller = Caller("ann")
    caller.call()
    opened = caller.only(ev.OpenLease)
    assert (opened.peer, opened.inputs_waiting) == ("ann", 1)
    caller.send(ev.LeaseAccepted(opened.lease, 1))
    sent = caller.only(ev.SendInput)
    assert sent.payload == b"payload 0"
    caller.finish(opened.lease, sent)
    assert caller.only(ev.Deliver) == ev.Deliver("c", 0, payload=b"result")
    assert caller.only(ev.CallEnded).call == "c"


def test_a_second_outcome_of_the_same_input_is_dropped():
    caller = Caller("ann")
    lease = caller.lease()
    sent = caller.only(ev.SendInput)
    caller.finish(lease, sent)
    caller.finish(lease, sent)
    assert not caller.all(ev.Deliver)


def test_a_map_opens_leases_with_every_peer_it_can_use_and_faster_ones_get_more():
    caller = Caller("ann", "bob")
    caller.call(20)
    leases = {action.peer: action.lease for action in caller.all(ev.OpenLease)}
    assert set(leases) == {"ann", "bob"}
    for peer in ("bob", "ann"):
        caller.send(ev.LeaseAccepted(leases[peer], 1))
    for _ in range(5):
        caller.finish(leases["ann"], caller.only(ev.SendInput))
        assert caller.only(ev.SendInput).lease == leases["ann"]


def test_short_inputs_are_sent_ahead_and_long_ones_are_not():
    caller = Caller("ann")
    lease = caller.lease(slots=1, inputs=500)
    caller.finish(lease, caller.only(ev.SendInput), run_us=1_000_000, payload=b"")
    assert len(caller.all(ev.SendInput)) == 1
    for _ in range(60):
        caller.finish(lease, caller.all(ev.SendInput)[-1], run_us=100, payload=b"")
        if len(caller.all(ev.SendInput)) > 1:
            break
    assert len(caller.all(ev.SendInput)) > 1


def test_a_lost_lease_puts_its_inputs_elsewhere_and_bans_the_peer():
    caller = Caller("ann", "bob")
    lease = caller.lease()
    (lost_peer,) = [peer for _, peer, _, _ in caller.core.leases()]
    caller.send(ev.LeaseLost(lease, "unplugged"))
    again = caller.only(ev.OpenLease)
    assert again.peer != lost_peer
    caller.send(ev.LeaseAccepted(again.lease, 1))
    assert (caller.only(ev.SendInput).input, caller.only(ev.SendInput).attempt) == (1, 2)


def test_the_only_peer_is_not_pestered_while_it_cannot_be_reached():
    caller = Caller("ann")
    caller.call()
    caller.send(ev.LeaseLost(caller.only(ev.OpenLease).lease, "connection refused"))
    assert not caller.all(ev.OpenLease)
    caller.wait(limits.BUSY_RETRY_US)
    assert caller.only(ev.OpenLease).peer == "ann"


def test_an_input_that_takes_machine_after_machine_down_fails_in_the_end():
    caller = Caller("ann")
    caller.call()
    opened = caller.only(ev.OpenLease)
    for _ in range(limits.LOSSES_MAX + 1):
        caller.send(ev.LeaseAccepted(opened.lease, 1))
        caller.send(ev.LeaseLost(opened.lease, "unplugged"))
        if caller.all(ev.Deliver):
            break
        opened = (caller.all(ev.OpenLease) or (caller.wait(bans.BAN_MAX_US) and caller.all(ev.OpenLease)))[0]
    failure = caller.only(ev.Deliver).failure
    assert "lost on 6 machines" in failure.what
    assert "unplugged" in failure.why


def test_owners_may_take_their_machines_back_as_often_as_they_like():
    caller = Caller("ann")
    lease = caller.lease()
    for _ in range(3 * limits.LOSSES_MAX):
        caller.finish(lease, caller.only(ev.SendInput), lost="the owner returned", yielded=True)
        assert not caller.all(ev.Deliver)
    caller.finish(lease, caller.only(ev.SendInput))
    assert caller.only(ev.Deliver).payload == b"result"


def test_an_exception_is_delivered_at_once_without_retries():
    caller = Caller("ann")
    lease = caller.lease()
    caller.finish(lease, caller.only(ev.SendInput), exception=BOOM)
    assert caller.only(ev.Deliver).exception == BOOM


def test_an_exception_is_retried_with_growing_delay_as_often_as_asked():
    policy = RetryPolicy(max_retries=2, initial_delay_us=1_000_000, backoff_milli=3000, max_delay_us=60_000_000)
    caller = Caller("ann", function=spec(retries=policy))
    lease = caller.lease()
    caller.finish(lease, caller.only(ev.SendInput), exception=BOOM)
    assert not caller.all(ev.Deliver)
    assert not [a for a in caller.wait(999_000) if isinstance(a, ev.SendInput)]
    caller.wait(2_000)
    caller.finish(lease, caller.only(ev.SendInput), exception=BOOM)
    assert not [a for a in caller.wait(2_990_000) if isinstance(a, ev.SendInput | ev.OpenLease)]
    caller.wait(20_000)
    if caller.all(ev.OpenLease):
        lease = caller.only(ev.OpenLease).lease
        caller.send(ev.LeaseAccepted(lease, 1))
    caller.finish(lease, caller.only(ev.SendInput), exception=BOOM)
    assert caller.only(ev.Deliver).exception == BOOM


def test_a_busy_peer_is_asked_again_later():
    caller = Caller("ann")
    caller.call()
    caller.send(ev.LeaseDenied(caller.only(ev.OpenLease).lease, "busy", BUSY, retry_after_us=500_000))
    assert not caller.all(ev.OpenLease)
    assert "none free" in caller.only(ev.Notice).text
    caller.wait(1_100_000)
    assert caller.only(ev.OpenLease).peer == "ann"


def test_a_refusal_that_would_be_the_same_everywhere_fails_the_call_once_a_second_peer_agrees():
    caller = Caller("ann", "bob")
    failure = Failure.of(ImageImportError("no numpy"))
    lease = caller.lease(inputs=2)
    (first,) = [peer for name, peer, _, _ in caller.core.leases() if name == lease]
    caller.send(ev.LeaseDenied(lease, "function", failure))
    assert not caller.all(ev.Deliver)
    leases = {peer: name for name, peer, _, _ in caller.core.leases()}
    assert first not in leases
    caller.send(ev.LeaseDenied(*leases.values(), "function", failure))
    assert [deliver.failure for deliver in caller.all(ev.Deliver)] == [failure, failure]


def test_one_lying_peer_does_not_end_a_call():
    caller = Caller("liar", "bob")
    caller.call()
    for _ in range(3):
        for name, peer, slots, _ in list(caller.core.leases()):
            if peer == "liar":
                caller.send(ev.LeaseDenied(name, "function", BUSY))
            elif not slots:
                caller.send(ev.LeaseAccepted(name, 1))
    (lease,) = [name for name, peer, _, _ in caller.core.leases() if peer == "bob"]
    caller.finish(lease, caller.only(ev.SendInput))
    assert caller.only(ev.Deliver).payload == b"result"


def test_the_only_peer_is_believed_at_once_and_when_the_others_leave():
    failure = Failure.of(ImageImportError("no numpy"))
    caller = Caller("ann")
    lease = caller.lease()
    caller.send(ev.LeaseDenied(lease, "function", failure))
    assert caller.only(ev.Deliver).failure == failure
    caller = Caller("ann", "bob")
    lease = caller.lease()
    caller.send(ev.LeaseDenied(lease, "function", failure))
    other = caller.only(ev.OpenLease)
    caller.peers.remove(other.peer)
    caller.book.forget(other.peer)
    caller.send(ev.LeaseLost(other.lease, "unplugged"))
    assert caller.only(ev.Deliver).failure == failure


def test_a_peer_is_not_asked_again_for_a_function_that_fails_while_its_call_is_open():
    caller = Caller("ann")
    caller.call(ended=False)
    failure = Failure.of(ImageImportError("no numpy"))
    caller.send(ev.LeaseDenied(caller.only(ev.OpenLease).lease, "function", failure))
    assert caller.only(ev.Deliver).failure == failure
    caller.send(ev.InputAdded("c", 1, b""))
    assert caller.only(ev.Deliver).failure == failure
    assert not caller.all(ev.OpenLease)
    caller.send(ev.InputsEnded("c"))
    caller.now_us += limits.BUSY_RETRY_US
    caller.call(name="later")
    assert caller.only(ev.OpenLease).peer == "ann"


def test_inputs_already_sent_are_not_forgotten_when_the_lease_is_denied_late():
    caller = Caller("ann", "bob")
    lease = caller.lease()
    caller.send(ev.LeaseDenied(lease, "sandbox", BUSY))
    assert caller.only(ev.OpenLease).lease != lease


def test_nobody_fits_fails_only_after_discovery_had_its_chance():
    caller = Caller("ann", function=needs(gpu=("H100",)))
    caller.call()
    assert not [a for a in caller.wait(limits.NO_PEER_GRACE_US - 100_000) if isinstance(a, ev.Deliver)]
    caller.wait(2_000_000)
    failure = caller.only(ev.Deliver).failure
    assert failure.kind == "no-peer"
    assert "ann has no GPU" in failure.why


def test_the_wait_ends_as_soon_as_somebody_fits():
    caller = Caller()
    caller.call()
    assert "no peer known" in caller.only(ev.Notice).text
    caller.peers = ["ann"]
    caller.renew()
    caller.send(ev.OffersChanged())
    assert caller.only(ev.OpenLease).peer == "ann"


def test_cancelling_stops_what_runs_and_forgets_what_waits():
    caller = Caller("ann")
    lease = caller.lease(slots=1, inputs=3)
    sent = caller.only(ev.SendInput)
    caller.send(ev.CallCancelled("c", "ctrl-c"))
    assert caller.only(ev.AbortInput) == ev.AbortInput(lease, sent.input, "ctrl-c")
    caller.finish(lease, sent, lost="ctrl-c")
    assert not caller.all(ev.Deliver)
    assert not caller.all(ev.SendInput)


def test_an_idle_lease_lingers_then_ends_and_nothing_is_left():
    caller = Caller("ann")
    lease = caller.lease()
    caller.finish(lease, caller.only(ev.SendInput))
    assert not caller.all(ev.EndLease)
    caller.wait(limits.LINGER_US + 10_000)
    assert caller.only(ev.EndLease).lease == lease
    assert caller.core.wake_us is None
    assert not list(caller.core.leases())


def test_a_lease_that_is_not_answered_wakes_nobody_in_vain():
    caller = Caller("ann")
    caller.call()
    assert len(wakes(caller, limits.LINGER_US + 5_000_000)) < 20


def test_an_idle_lease_kept_for_a_retry_wakes_nobody_in_vain():
    caller = Caller("ann", function=spec(retries=RetryPolicy(max_retries=1, initial_delay_us=60_000_000)))
    lease = caller.lease()
    caller.finish(lease, caller.only(ev.SendInput), exception=BOOM)
    assert len(wakes(caller, limits.LINGER_US + 5_000_000)) < 20


def test_calls_of_one_function_share_its_lease():
    caller = Caller("ann")
    lease = caller.lease(slots=2)
    caller.call(name="second")
    assert not caller.all(ev.OpenLease)
    assert caller.only(ev.SendInput).lease == lease


def test_our_own_machine_is_a_candidate_like_any_other():
    caller = Caller(own=offer("us-us-us-us"))
    caller.call()
    assert caller.only(ev.OpenLease).peer == "us-us-us-us"


@pytest.mark.parametrize("reason", ["image", "sandbox"])
def test_refusals_that_waiting_does_not_cure_end_the_call(reason):
    caller = Caller("ann")
    caller.call()
    for _ in range(limits.REFUSALS_MAX):
        caller.send(ev.LeaseDenied(caller.only(ev.OpenLease).lease, reason, BUSY))
        if caller.all(ev.Deliver):
            break
        caller.wait(bans.BAN_MAX_US)
    assert caller.only(ev.Deliver).failure == BUSY


def put_off(caller, times):
    for _ in range(times):
        caller.send(ev.LeaseDenied(caller.only(ev.OpenLease).lease, "busy", BUSY))
        if caller.all(ev.Deliver):
            return
        caller.wait(bans.BAN_MAX_US)


def test_a_peer_that_is_busy_for_ever_and_says_that_it_is_free_refuses():
    """Found by the simulator: python -m potluck_netsim hostile --seed 6 --nodes 10 --minutes 1.5."""
    caller = Caller("ann")
    caller.call()
    put_off(caller, hiring.PUT_OFF_MAX)
    assert not caller.all(ev.Deliver)
    put_off(caller, limits.REFUSALS_MAX)
    assert caller.only(ev.Deliver).failure == BUSY


class Full(Caller):
    """Its peers say that they are busy."""

    def renew(self):
        for peer in self.peers:
            times = {"issued_us": self.now_us, "expires_us": self.now_us + OFFER_LIFE_US}
            full = offer(peer, sequence=self.now_us, cpu_free_milli=0, slots_free=0, **times)
            self.book.add(full, self.now_us)


def test_a_peer_that_is_busy_and_says_so_is_waited_for():
    caller = Full("ann")
    caller.call()
    put_off(caller, 2 * hiring.PUT_OFF_MAX)
    assert not caller.all(ev.Deliver)


class Wary(Caller):
    """Trusts bob alone."""

    def __init__(self, *peers, **more):
        super().__init__(*peers, **more)
        self.core = CallCore(self.book, dice(), lambda: None, Levels("us", ("bob",)).of)


def test_peers_that_are_not_trusted_are_told_to_send_data_and_their_pickles_are_refused():
    caller = Wary("ann")
    lease = caller.lease(inputs=3)
    assert caller.only(ev.SendInput).plain
    caller.finish(lease, caller.only(ev.SendInput), payload=b"\x80\x05N.")
    failure = caller.only(ev.Deliver).failure
    assert failure.kind == "serialization"
    assert 'trust = ["ann"]' in failure.fix
    caller.finish(lease, caller.only(ev.SendInput), payload=b"\xc1\xc0")
    assert caller.only(ev.Deliver).payload == b"\xc1\xc0"
    caller.finish(
        lease, caller.only(ev.SendInput), exception=replace(BOOM, pickled=b"\x80\x05N.", arguments=b"\xc1\x90")
    )
    assert caller.only(ev.Deliver).exception == replace(BOOM, arguments=b"\xc1\x90")


def test_trusted_peers_may_send_pickles():
    caller = Wary("bob")
    lease = caller.lease()
    assert not caller.only(ev.SendInput).plain
    caller.finish(lease, caller.only(ev.SendInput), payload=b"\x80\x05N.")
    assert caller.only(ev.Deliver).payload == b"\x80\x05N."


def test_an_item_that_is_a_pickle_ends_the_generator_of_a_peer_that_is_not_trusted():
    caller = Wary("ann", function=spec(generator=True))
    lease = caller.lease()
    sent = caller.only(ev.SendInput)
    caller.send(ev.ItemYielded(lease, InputItem(sent.input, 1, 0, b"\xc1\xc0")))
    assert caller.only(ev.DeliverItem).payload == b"\xc1\xc0"
    caller.send(ev.ItemYielded(lease, InputItem(sent.input, 1, 1, b"\x80\x05N.")))
    assert caller.only(ev.Deliver).failure.kind == "serialization"
    assert caller.only(ev.AbortInput).input == sent.input
