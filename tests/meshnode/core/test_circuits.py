"""What a relay gives to whom, and how fast."""

from hypothesis import given
from hypothesis import strategies as st

from potluck_node.core import circuits
from potluck_node.core.circuits import Bucket, Desk, Meter


def test_a_relay_serves_whom_it_promised_to_and_nobody_else():
    desk = Desk()
    assert desk.begin("ann", "bob", 0) == "this node does not relay for that peer"
    assert desk.reserve("bob", 0) == ""
    assert desk.begin("ann", "bob", 1) == ""
    assert desk.begin("ann", "bob", circuits.RESERVATION_S + 1) == "this node does not relay for that peer"
    off = Desk(enabled=False)
    assert off.reserve("bob", 0) == off.may_ask("bob", 0) == "this node relays nothing"


def test_reservations_and_circuits_are_limited():
    desk = Desk()
    for number in range(circuits.RESERVATIONS_MAX):
        assert desk.reserve(f"p{number}", 0) == ""
    assert "as many peers" in desk.reserve("late", 0)
    assert desk.reserve("p1", 1) == ""
    for _ in range(circuits.CIRCUITS_PER_PEER_MAX):
        assert desk.begin("ann", "p1", 2) == ""
    assert "as much as it can" in desk.begin("ann", "p2", 2)
    assert "as much as it can" in desk.begin("cas", "p1", 2)
    desk.end("ann", "p1")
    assert desk.begin("ann", "p2", 2) == ""
    for number in range(circuits.CIRCUITS_MAX - circuits.CIRCUITS_PER_PEER_MAX):
        assert desk.begin(f"q{number}", f"p{number + 3}", 2) == ""
    assert "as much as it can" in desk.begin("new", "p200", 2)


def test_a_circuit_passes_bytes_at_a_rate_and_ends():
    desk, meter = Desk(), Meter(0)
    assert desk.passes(meter, 0, circuits.BURST_BYTES, 0) == 0
    assert desk.passes(meter, 0, circuits.BYTES_PER_SECOND, 0) == 1
    # The other direction, and a minute later all, has a burst again.
    assert desk.passes(meter, 1, circuits.BURST_BYTES, 0) == 0
    assert desk.passes(meter, 0, circuits.BURST_BYTES, 60) == 0
    assert desk.passes(meter, 0, 1, circuits.CIRCUIT_LIFE_S + 1) is None
    assert desk.passes(Meter(0), 0, circuits.CIRCUIT_BYTES_MAX + 1, 1) is None


def test_all_circuits_together_have_a_rate():
    desk = Desk()
    waits = [desk.passes(Meter(0), 0, circuits.BURST_BYTES, 0) for _ in range(10)]
    assert waits[0] == 0
    over = 10 * circuits.BURST_BYTES - circuits.ALL_BURST_BYTES
    assert waits[-1] == over / circuits.ALL_BYTES_PER_SECOND


def test_who_asks_all_the_time_is_not_answered_all_the_time():
    desk = Desk()
    answered = sum(not desk.hurried("eve", second / 10) for second in range(1000))
    assert answered <= circuits.QUESTIONS_BURST + 100 * circuits.QUESTIONS_PER_SECOND
    assert not desk.hurried("ann", 100)
    for number in range(2 * circuits.PEERS_MAX):
        desk.hurried(f"p{number}", 100)
    assert len(desk._asked) <= circuits.PEERS_MAX


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 3 << 20)), max_size=50))
def test_a_bucket_never_lets_more_through_than_its_rate(steps):
    bucket, now, sent, ready = Bucket.full(1 << 20, 1 << 20, 0), 0.0, 0, 0.0
    for pause, amount in steps:
        now += pause
        sent += amount
        ready = max(ready, now + bucket.take(amount, now))
        assert sent <= (1 << 20) * (ready + 1) + 1
