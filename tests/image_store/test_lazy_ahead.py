"""Neighbours are read ahead: few for a single read, then further each time; no run leaves its file."""

from potluck_images.lazy_ahead import AHEAD_FIRST, AHEAD_MAX, Ahead
from potluck_images.manifest import FORMAT, ChunkRef, File, Manifest, Piece

NAMES = [bytes([number]) * 32 for number in range(1, 201)]


def file(path, places):
    return File(path, 0o644, len(places), b"", tuple(Piece(place, 0, 1) for place in places))


LAYER = Manifest(
    FORMAT,
    tuple(ChunkRef(name, 1) for name in NAMES),
    (file("a", range(150)), file("b", range(150, 199)), file("small", [199])),
)


def test_single_reads_fetch_few_ahead():
    ahead = Ahead([LAYER])
    for number in (10, 50, 30):
        assert ahead.after([NAMES[number]]) == NAMES[number + 1 : number + 1 + AHEAD_FIRST]
    assert ahead.after([NAMES[60], NAMES[61], NAMES[62]]) == NAMES[63 : 63 + AHEAD_FIRST]
    assert ahead.after([b"\xff" * 32]) == ahead.after([NAMES[199]]) == ahead.after([]) == []


def test_a_run_is_fetched_further_ahead_each_time_up_to_a_limit():
    ahead, place, counts = Ahead([LAYER]), 0, []
    while place < 90:
        found = ahead.after([NAMES[place]])
        assert found == NAMES[place + 1 : place + 1 + len(found)]
        counts.append(len(found))
        place += 1 + len(found)
    assert counts == [AHEAD_FIRST, 2 * AHEAD_FIRST, 4 * AHEAD_FIRST, 8 * AHEAD_FIRST, AHEAD_MAX, AHEAD_MAX]


def test_a_run_ends_with_its_file_and_where_chunks_were_fetched_already():
    ahead = Ahead([LAYER])
    assert ahead.after([NAMES[148]]) == [NAMES[149]]
    assert ahead.after([NAMES[146]]) == [NAMES[147]]
    assert ahead.after([NAMES[150]]) == NAMES[151 : 151 + AHEAD_FIRST]
    ahead.after([NAMES[11]])
    assert ahead.after([NAMES[9]]) == [NAMES[10]]
    assert ahead.after([NAMES[8]]) == []
