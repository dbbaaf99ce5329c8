"""What reports of observers come to, and which way to a peer is tried when."""

from hypothesis import given
from hypothesis import strategies as st

from potluck_node.core import reach
from potluck_node.core.reach import Report, Verdict, dialable, judge, punchable, ways

OUTSIDE, INSIDE = "45.9.0.3", "192.168.1.10"


def report(observer, host=OUTSIDE, port=4001, *open_ports):
    return Report(observer, host, port, open_ports)


def test_reports_come_to_a_verdict():
    own = {INSIDE, "127.0.0.1"}
    assert judge([], own) == Verdict()
    assert judge([report("a")], own).kind == "cone"
    assert judge([report("a"), report("b")], own) == Verdict("cone", (), 2)
    assert judge([report("a"), report("b", port=5005)], own).kind == "symmetric"
    assert judge([report("a", OUTSIDE, 4001, 4001)], own) == Verdict("mapped", ((OUTSIDE, 4001),), 1)
    assert judge([report("a", OUTSIDE, 4001, 4001)], {OUTSIDE}).kind == "open"
    assert judge([report("a")], {OUTSIDE}).kind == "walled"


def test_one_who_got_in_is_enough_and_who_did_not_proves_nothing():
    found = judge([report("a"), report("b", OUTSIDE, 4001, 4001)], {INSIDE})
    assert found.reachable
    assert not found.hidden


def test_neighbours_say_nothing_about_the_router():
    near = report("near", INSIDE, 4001, 4001)
    assert judge([near], {INSIDE}).kind == "open"
    assert judge([near, report("far")], {INSIDE}) == Verdict("cone", (), 1)


def test_both_have_to_know_the_others_port_for_a_punch():
    assert punchable("cone", "cone")
    assert punchable("walled", "cone")
    assert not punchable("symmetric", "cone")
    assert not punchable("cone", "symmetric")


def test_nobody_makes_us_dial_a_local_network_or_a_service():
    named = [("10.0.0.1", 4001), ("192.168.1.1", 4001), ("127.0.0.1", 4001), ("169.254.1.1", 4001), ("::1", 4001),
             ("fe80::1", 4001), ("100.64.0.1", 4001), ("nonsense", 4001), (OUTSIDE, 80), (OUTSIDE, 99999)]  # fmt: skip
    assert dialable(named) == ()
    assert dialable([(OUTSIDE, 4001), *named]) == ((OUTSIDE, 4001),)


@given(st.lists(st.tuples(st.ip_addresses().map(str) | st.text(max_size=20), st.integers())))
def test_what_may_be_dialled_is_global_and_little(named):
    found = dialable(named)
    assert len(found) <= reach.ENDPOINTS_MAX
    assert all(reach.is_global(host) and port >= reach.PORT_MIN for host, port in found)


def test_ways_are_tried_in_order():
    relay = "/ip4/45.9.0.1/tcp/4001/p2p/R"
    found = ways(
        ["/ip4/127.0.0.1/tcp/1/p2p/B", f"/ip4/{OUTSIDE}/tcp/2/p2p/B", "/ip6/2a00:1450::1/tcp/3/p2p/B",
         f"/ip4/{INSIDE}/tcp/4/p2p/B", f"{relay}/p2p-circuit/p2p/B", "/dns4/bob.example/tcp/5/p2p/B"]
    )  # fmt: skip
    assert [each.split("/")[4] for each in found.direct] == ["4", "3", "2", "5", "1"]
    assert found.relays == (relay,)
    assert found.ask_after_s > 0
    assert ways([f"{relay}/p2p-circuit/p2p/B"]).ask_after_s == 0


@given(st.lists(st.text(alphabet="/p2-circuitdns4.0", max_size=60)))
def test_nonsense_is_sorted_without_complaint(addresses):
    found = ways(addresses)
    assert not any(reach.CIRCUIT in each for each in (*found.direct, *found.relays))
