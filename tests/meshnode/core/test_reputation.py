"""What is learned of peers, and forgotten."""

from hypothesis import given
from hypothesis import strategies as st
from tests.meshnode.core.worlds import NOW_US, dice

from potluck_node.core import reputation as limits
from potluck_node.core.reputation import BAN_FIRST_US, BAN_MAX_US, HALF_LIFE_US, STREAK_MIN, Reputation

IMAGE = "ab" * 32


def right(reputation, count, peer="ann", image=IMAGE):
    for _ in range(count):
        assert not reputation.verdict(peer, image, True, NOW_US)


def test_everything_is_checked_until_ten_in_a_row_were_right_and_then_as_boinc_does():
    known, sides = Reputation(), dice()
    right(known, STREAK_MIN - 1)
    assert all(known.checks("ann", IMAGE, sides) for _ in range(100))
    right(known, 91)
    share = sum(known.checks("ann", IMAGE, sides) for _ in range(20_000)) / 20_000
    assert 0.007 < share < 0.013
    # Of another image nothing is known yet.
    assert known.checks("ann", "cd" * 32, sides)


def test_one_that_was_wrong_begins_anew_for_every_image_and_is_not_banned_yet():
    known = Reputation()
    right(known, 50)
    assert not known.verdict("ann", "cd" * 32, False, NOW_US)
    assert known.checks("ann", IMAGE, dice())
    assert known.banned("ann", NOW_US) == ""


def test_who_loses_two_quorums_or_fails_a_canary_is_banned_for_a_time_that_grows_and_ends():
    known = Reputation()
    known.verdict("ann", IMAGE, False, NOW_US)
    assert known.verdict("ann", IMAGE, False, NOW_US)
    assert "lost 2 quorums" in known.banned("ann", NOW_US)
    assert known.banned("ann", NOW_US + BAN_FIRST_US) == ""
    assert known.verdict("ann", IMAGE, False, NOW_US + BAN_FIRST_US, proof=True)
    assert "canary" in known.banned("ann", NOW_US + 3 * BAN_FIRST_US - 1)
    assert known.banned("ann", NOW_US + 3 * BAN_FIRST_US) == ""


def test_a_step_of_the_ban_is_forgotten_in_time():
    known = Reputation()
    for _ in range(3):
        known.verdict("ann", IMAGE, False, NOW_US, proof=True)
        known.records["ann"].until_us = NOW_US
    later = known.of("ann", NOW_US).until_us + 3 * BAN_MAX_US
    known.verdict("ann", IMAGE, False, later, proof=True)
    assert known.of("ann", later).until_us == later + BAN_FIRST_US


def test_what_was_answered_before_the_ban_makes_it_no_longer():
    known = Reputation()
    for _ in range(9):
        known.verdict("ann", IMAGE, False, NOW_US)
    assert known.of("ann", NOW_US).until_us == NOW_US + BAN_FIRST_US


def test_two_losses_that_lie_far_apart_are_no_pattern():
    known = Reputation()
    known.verdict("ann", IMAGE, False, NOW_US)
    assert not known.verdict("ann", IMAGE, False, NOW_US + 2 * HALF_LIFE_US)


def test_what_is_known_fades():
    known = Reputation()
    right(known, 8)
    assert known.of("ann", NOW_US + HALF_LIFE_US).right == 4
    assert known.of("ann", NOW_US + 40 * HALF_LIFE_US).score == 500


def test_placement_prefers_those_who_were_right_and_avoids_those_who_were_wrong():
    known = Reputation()
    right(known, 1)
    known.verdict("bob", IMAGE, False, NOW_US)
    known.billed("cas", False, NOW_US)
    known.billed("dan", True, NOW_US)
    assert [known.doubt(peer, NOW_US) for peer in ("ann", "bob", "cas", "dan", "eve")] == [0, 2, 2, 0, 1]


def test_what_is_kept_is_bounded_and_bans_outlive_the_rest(monkeypatch):
    monkeypatch.setattr(limits, "PEERS_MAX", 3)
    known = Reputation()
    known.verdict("liar", IMAGE, False, NOW_US, proof=True)
    for number in range(10):
        right(known, 1, f"peer {number}")
    assert len(known.records) == 3
    assert known.banned("liar", NOW_US)
    for number in range(100):
        right(known, 1, "peer 9", f"image {number}")
    assert len(known.records["peer 9"].streaks) == limits.IMAGES_MAX


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 10**13)), max_size=60))
def test_no_ban_is_for_good_and_no_score_leaves_its_range(verdicts):
    known, now_us = Reputation(), NOW_US
    for right_, proof, later_us in verdicts:
        now_us += later_us
        known.verdict("ann", IMAGE, right_, now_us, proof=proof)
        record = known.of("ann", now_us)
        assert 0 <= record.score <= 1000
        assert record.until_us <= now_us + BAN_MAX_US
