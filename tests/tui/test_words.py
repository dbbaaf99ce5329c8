import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck_tui.words import age, bar, cores, counted, duration, memory, plain, uptime

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("us", "words"),
    [
        (0, "0 s"),
        (40_000, "40 ms"),
        (3_240_000, "3.2 s"),
        (59_990_000, "59.9 s"),
        (60 * SECOND, "1 min 00 s"),
        (125 * SECOND, "2 min 05 s"),
        (3600 * SECOND, "1 h 00 min"),
        (3 * 3600 * SECOND + 600 * SECOND, "3 h 10 min"),
        (52 * 3600 * SECOND, "2 d 4 h"),
        (-3_240_000, "−3.2 s"),
    ],
)
def test_durations(us, words):
    assert duration(us) == words


def test_ages_have_no_fractions_and_are_never_negative():
    assert (age(12_900_000), age(400_000), age(-5)) == ("12 s", "0 s", "0 s")


def test_a_machine_is_up_for_whole_minutes():
    assert [uptime(each * SECOND) for each in (5, 60, 119, 3599, 3600)] == [
        "5 s",
        "1 min",
        "1 min",
        "59 min",
        "1 h 00 min",
    ]


def test_cores_memory_counts():
    assert (cores(1000), cores(500), cores(2500)) == ("1 core", "0.5 cores", "2.5 cores")
    assert (memory(512), memory(1536)) == ("512 MiB", "1.5 GiB")
    assert (counted(1, "peer"), counted(3, "peer")) == ("1 peer", "3 peers")


@given(st.integers(-5, 2000), st.integers(-5, 2000), st.integers(1, 60))
def test_a_bar_is_full_only_when_all_is_used_and_empty_only_when_nothing_is(part, whole, width):
    cells = bar(part, whole, width)
    assert len(cells) == width
    if width > 1 and whole > 0:
        assert (cells.count("█") == 0) == (part <= 0)
        assert (cells.count("█") == width) == (part >= whole and part > 0)


@given(st.text())
def test_what_strangers_say_can_neither_move_the_cursor_nor_turn_the_text(text):
    assert all(each.isprintable() for each in plain(text))


def test_control_and_bidi_characters_are_visible_as_such():
    assert plain("a\x1b[2Jb\u202ec\n") == "a�[2Jb�c�"
    assert len(plain("x" * 5000)) == 200
