"""Sums of receipts: each lease once, what both signed apart from what one says."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor
from tests.ledger.test_journal import CALLER, PROVIDER, receipt

from potluck.cli.ledger_report import _cell, _picture
from potluck.cli.pictures import png, svg
from potluck_ledger.report import NO_GPU, Cost, Line, keys, labelled, summed, usual

DAY_US = 86_400_000_000
SOME = [
    (receipt(1, label="a.f", gpu_model="A10G", ended_us=DAY_US, energy_mj=7), True),
    (receipt(2, label="a.g", ended_us=DAY_US - 1, lease_us=7_000), True),
    (receipt(3, label="b.f", ended_us=DAY_US + 1), False),
]


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("user", [(PROVIDER.peer, 3, 12_000)]),
        ("function", [("a.g", 1, 7_000), ("a.f", 1, 5_000), ("b.f", 1, 0)]),
        ("app", [("a", 2, 12_000), ("b", 1, 0)]),
        ("gpu", [(NO_GPU, 2, 7_000), ("A10G", 1, 5_000)]),
        ("day", [("1970-01-01", 1, 7_000), ("1970-01-02", 2, 5_000)]),
    ],
)
def test_sums_by(by, wanted):
    lines = summed(CALLER.peer, by, SOME)
    assert [(line.name, line.leases, line.used_us) for line in lines] == wanted
    assert sum(line.unsigned_us for line in lines) == 5_000
    assert sum(line.energy_mj for line in lines) == 7


def test_the_other_side_gave_what_one_used():
    (line,) = summed(PROVIDER.peer, "user", SOME)
    assert (line.name, line.given_us, line.used_us) == (CALLER.peer, 12_000, 0)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 10**6), st.booleans())), st.sampled_from(list(keys(""))))
def test_no_lease_counts_twice_and_none_is_left_out(made, by):
    receipts = [(receipt(n, lease_us=us + 4_000, label=f"app{n % 2}.f"), whole) for n, us, whole in made]
    lines = summed(CALLER.peer, by, receipts)
    first = {each.lease: (each.lease_us, whole) for each, whole in reversed(receipts)}
    assert sum(line.used_us for line in lines) == sum(us for us, whole in first.values() if whole)
    assert sum(line.unsigned_us for line in lines) == sum(us for us, whole in first.values() if not whole)
    assert sum(line.leases for line in lines) == len(first)


def test_the_picture_is_a_document_whatever_strangers_call_their_functions():
    lines = [Line("<script>&\x1b[31m", used_us=5_000_000), Line("b", given_us=1)]
    root = ElementTree.fromstring(svg("Seconds <by> name", [_picture(line) for line in lines]))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["Seconds <by> name", "<script>&[31m", "5.0 s", "b", "0.0 s"]
    ElementTree.fromstring(svg("none", []))


def test_a_png_has_a_bar_for_each_line_as_long_as_its_value(tmp_path):
    lines = [Line("ann", used_us=4_000_000), Line("b\x1b[31m", given_us=1_000_000), Line("none")]
    png("Seconds", [_picture(line) for line in lines], tmp_path / "bars.png")
    with Image.open(tmp_path / "bars.png") as image:
        assert image.format == "PNG"
        blue = ImageColor.getrgb("#3b7dd8")
        rows = [[image.getpixel((x, top)) for x in range(image.width)] for top in (88, 136, 184)]
    lengths = [row.count(blue) for row in rows]
    assert lengths[0] > 800
    assert abs(lengths[0] - 4 * lengths[1]) < 8
    assert 0 < lengths[2] < 8


def test_a_spreadsheet_runs_no_name():
    assert [_cell(name) for name in ("=1+1", "@a", "a=1")] == ["'=1+1", "'@a", "a=1"]


def test_what_inputs_usually_take_by_gpu():
    made = [
        (receipt(1, inputs=2, lease_us=8_000), True),
        (receipt(2, inputs=1, lease_us=6_000), True),
        (receipt(3, inputs=1, lease_us=90_000), False),
        (receipt(4, inputs=1, lease_us=5_000, gpu_model="A10G"), True),
        (receipt(5, inputs=0, lease_us=5_000), True),
    ]
    assert usual(made) == {"app.f": [Cost(NO_GPU, 4, 6_000), Cost("A10G", 1, 5_000)]}


def test_a_long_name_is_found_as_receipts_cut_it():
    label = labelled("a" * 20, "ü" * 20)
    assert len(label.encode()) <= 32
    assert label == labelled("a" * 20, "ü" * 21)
