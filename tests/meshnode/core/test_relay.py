from potluck.wire.state import ASKS_MAX
from potluck_node.core.relay import Origin, Passed, Relay


def test_an_answer_finds_who_asked_once():
    relay = Relay()
    one, two = Origin("pool", "ann-1", 7), Origin("pool", "ann-2", 7)
    first, second = relay.asked(one, "lease"), relay.asked(two, "lease")
    assert first.number != second.number
    assert relay.told(Passed("another lease", first.number)) is None
    assert relay.told(first) == one
    assert relay.told(first) is None
    assert relay.dropped(two) == second
    assert relay.dropped(two) is None


def test_a_number_is_not_used_twice_at_once_and_there_is_a_limit():
    relay = Relay()
    for number in range(ASKS_MAX):
        assert relay.asked(Origin("pool", "ann-1", number), "lease")
    assert relay.asked(Origin("pool", "ann-1", 0), "lease") is None
    assert relay.asked(Origin("pool", "ann-1", ASKS_MAX), "lease") is None
    assert relay.asked(Origin("pool", "ann-2", 0), "lease")
    relay.dropped(Origin("pool", "ann-1", 0))
    assert relay.asked(Origin("pool", "ann-1", ASKS_MAX), "lease")


def test_what_ends_takes_its_requests_along():
    relay = Relay()
    left, kept = relay.asked(Origin("pool", "ann-1", 1), "one"), relay.asked(Origin("pool", "ann-2", 1), "two")
    assert relay.worker_gone("pool", "ann-1") == [left]
    assert relay.lease_gone("two") == [Origin("pool", "ann-2", 1)]
    assert relay.told(left) is relay.told(kept) is None
