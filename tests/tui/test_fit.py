from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from potluck_tui.fit import GAP, align, cut, share


def test_columns_are_aligned_also_with_wide_characters():
    lines = ["|".join(row) for row in align([("a", "x"), ("日本", "yy")], 80)]
    assert lines == ["a   |x ", "日本|yy"]


def test_the_widest_column_is_cut_and_says_so():
    assert align([("ann", "x" * 30, "running")], 20) == [["ann", "xxxxx…", "running"]]


def test_a_column_without_content_takes_no_room():
    assert align([("ann", "", "b")], 80) == [["ann", "b"]]


@given(
    st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[st.text(max_size=40)] * n), min_size=1)),
    st.integers(20, 120),
)
def test_rows_never_exceed_the_width(rows, width):
    rows = [tuple("".join(c for c in cell if c.isprintable()) for cell in row) for row in rows]
    for cells in align(rows, width):
        assert sum(cell_len(cell) for cell in cells) + GAP * (len(cells) - 1) <= width


def test_lines_go_to_those_that_want_them():
    assert share([2, 0, 0, 50], 11) == [2, 1, 1, 7]
    assert share([2, 9, 9, 9], 11) == [2, 3, 3, 3]
    assert share([1, 1], 10) == [1, 1]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(-5, 60))
def test_nobody_goes_without_a_line_and_the_room_is_kept(wanted, room):
    given_lines = share(wanted, room)
    assert all(lines >= 1 for lines in given_lines)
    assert sum(given_lines) <= max(room, len(wanted))


@given(st.lists(st.integers()), st.integers(1, 20))
def test_a_cut_list_says_how_many_are_hidden_and_fits_with_that_line(rows, room):
    kept, hidden = cut(rows, room)
    assert len(kept) + hidden == len(rows)
    assert len(kept) + bool(hidden) <= room
