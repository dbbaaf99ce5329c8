"""Which peers keep which volumes."""

from hypothesis import given
from hypothesis import strategies as st

from potluck_node.core.copies import CONFIRM_US, RETRY_US, Copies, Drop, Keep

NOW = 10**15


def kept(copies, action, version=1, now=NOW):
    copies.kept(action.peer, action.volume, version, now)


def test_enough_peers_keep_the_newest_version():
    copies = Copies(2)
    assert copies.plan({"v": 1}, ["a", "b", "c"], NOW) == [Keep("a", "v"), Keep("b", "v")]
    kept(copies, Keep("a", "v"))
    assert copies.plan({"v": 1}, ["a", "b", "c"], NOW) == [Keep("b", "v")]
    kept(copies, Keep("b", "v"))
    assert copies.plan({"v": 1}, ["a", "b", "c"], NOW) == []
    assert copies.count("v", 1, ["a", "b"]) == 2
    # Another version goes to those who have the chunks of the last.
    assert copies.plan({"v": 2}, ["c", "b", "a"], NOW) == [Keep("b", "v"), Keep("a", "v")]
    assert copies.count("v", 2, ["a", "b"]) == 0


def test_one_that_is_gone_is_replaced_and_one_too_many_dropped():
    copies = Copies(2)
    for peer in "ab":
        kept(copies, Keep(peer, "v"))
    assert copies.plan({"v": 1}, ["b", "c"], NOW) == [Keep("c", "v")]
    assert copies.count("v", 1, ["b", "c"]) == 1
    kept(copies, Keep("c", "v"))
    assert copies.plan({"v": 1}, ["b", "c"], NOW) == []
    # It comes back: three have it, and one of them need not.
    assert copies.plan({"v": 1}, ["a", "b", "c"], NOW) == [Drop("c", "v")]


def test_nothing_is_dropped_before_enough_have_it():
    copies = Copies(1)
    kept(copies, Keep("a", "v"), version=1)
    kept(copies, Keep("b", "v"), version=2)
    assert copies.plan({"v": 3}, ["a", "b"], NOW) == [Keep("b", "v")]
    kept(copies, Keep("b", "v"), version=3)
    assert copies.plan({"v": 3}, ["a", "b"], NOW) == [Drop("a", "v")]


def test_who_refuses_is_asked_again_later_and_another_meanwhile():
    copies = Copies(1)
    copies.failed("a", "v", NOW)
    assert copies.plan({"v": 1}, ["a", "b"], NOW) == [Keep("b", "v")]
    assert copies.plan({"v": 1}, ["a"], NOW + RETRY_US - 1) == []
    assert copies.plan({"v": 1}, ["a"], NOW + RETRY_US) == [Keep("a", "v")]


def test_who_has_it_is_asked_again_before_it_forgets():
    copies = Copies(1)
    kept(copies, Keep("a", "v"))
    assert copies.plan({"v": 1}, ["a"], NOW + CONFIRM_US) == []
    assert copies.plan({"v": 1}, ["a"], NOW + CONFIRM_US + 1) == [Keep("a", "v")]


def test_what_a_peer_says_it_has_counts():
    copies = Copies(1)
    kept(copies, Keep("a", "v"))
    copies.heard("a", {"w": 3}, NOW)
    assert copies.plan({"v": 1, "w": 3}, ["a"], NOW) == [Keep("a", "v")]
    assert copies.sources("w") == ["a"]


def test_deleted_volumes_are_dropped_everywhere():
    copies = Copies(1)
    kept(copies, Keep("a", "v"))
    assert copies.deleted(["v"]) == [Drop("a", "v")]
    assert copies.sources("v") == []


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12), st.sets(st.sampled_from("abcd")))
def test_it_comes_to_rest_with_as_many_copies_as_can_be(history, up):
    copies, version = Copies(2), 0
    for peer, bump in history:
        version += bump
        copies.kept(peer, "v", max(version, 1), NOW)
    version = max(version, 1)
    for _ in range(5):
        for action in copies.plan({"v": version}, sorted(up), NOW):
            if isinstance(action, Keep):
                kept(copies, action, version)
            else:
                copies.dropped(action.peer, action.volume)
    assert copies.plan({"v": version}, sorted(up), NOW) == []
    assert copies.count("v", version, up) == min(2, len(up))
