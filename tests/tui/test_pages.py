"""What the pages say, without a screen."""

import pytest
from tests.tui.desk import NOW, SECOND, a_call, a_peer, a_status, a_worker, facts_of

from potluck.wire.control import AccountStatus
from potluck.wire.doctor import Finding
from potluck.wire.offer import GpuOffer
from potluck.wire.policy import PolicyTold, Reason
from potluck.wire.verify import PeersKnown
from potluck_tui.explained import FIGURES
from potluck_tui.model import make_view
from potluck_tui.pages import PAGES, PRINTS_MAX, ROWS_MAX, Books, Known, Notes, make_page


def blocks(name, known=None, **changes):
    status = a_status(**changes)
    return make_page(name, status, make_view(status), known or Known())


def known(*facts):
    return Known(PeersKnown(0, "local", NOW, facts))


def test_every_page_fills_its_blocks_and_is_explained():
    assert len({page.key for page in PAGES}) == len(PAGES)
    assert set(FIGURES) == {page.name for page in PAGES}
    for page in PAGES[1:]:
        assert set(blocks(page.name)) == set(page.blocks)
        assert all(isinstance(block, Notes) or block.empty or block.rows for block in blocks(page.name).values())


def test_calls_with_who_runs_them_and_what_runs_here():
    call = a_call(note="waiting")
    call = type(call)(call.call, "train", 30, 18, "waiting", ("bob: 2 slots", "eve: no \x1b GPU"))
    page = blocks("calling", calls=(call,), workers=(a_worker(),), peers=(a_peer(),))
    assert page["placed"].rows == (("train", "12 of 30 done", "", "waiting"),)
    assert page["placed"].keys == ("1.1",)
    assert page["why"].rows == (("train", "bob: 2 slots"), ("train", "eve: no � GPU"))
    assert page["here"].rows == (("ann-1", "train", "for bob", "running", "for 12 s"),)


@pytest.mark.parametrize("count", [0, PRINTS_MAX, PRINTS_MAX + 5])
def test_of_what_is_printed_the_newest_is_shown(count):
    tail = tuple(("w", str(number)) for number in range(count))
    rows = blocks("calling", Known(tail=tail), calls=(a_call(),))["log"].rows
    assert rows[-PRINTS_MAX:] == tail[-PRINTS_MAX:]
    assert [row[1].partition(" ")[0] for row in rows[:-PRINTS_MAX]] == ["5"] * (count > PRINTS_MAX)


class TestPeers:
    def test_nearest_first_with_trust_and_reputation(self):
        peers = (
            a_peer("far", "id-far", rtt_us=150_000),
            a_peer(rtt_us=1500, images=12, warm=3),
            a_peer("off", "id-off", connected=False),
        )
        page = blocks("mesh", known(facts_of(right=9.0, wrong=1.0, score=900)), peers=peers)
        rows = page["map"].rows
        assert [row[0] for row in rows] == ["bob", "far", "off"]
        assert rows[0][1:] == ("2 free", "█░░░░░░░", "1.5 ms", "3", "12", "stranger", "███████░", "0.90")
        assert page["reasons"].rows == (("bob", "nothing is known"),)
        assert rows[1][2:] == ("████░░░░", "150.0 ms", "", "", "", "", "")
        assert all(len(row) == len(page["map"].head) for row in rows)

    def test_one_that_was_never_judged_has_no_figure(self):
        (row,) = blocks("mesh", known(facts_of()), peers=(a_peer(),))["map"].rows
        assert row[6:9] == ("stranger", "", "unknown")

    def test_one_that_is_sent_nothing_says_for_how_long_and_why(self):
        ban = facts_of(banned_us=NOW + 90 * SECOND, banned_why="wrong \x1b results")
        page = blocks("mesh", known(ban))
        assert page["map"].rows[0][1] == "not here"
        assert page["reasons"].rows[0][1] == "sent nothing for 2 min: wrong � results"
        (over,) = blocks("mesh", known(facts_of(banned_us=NOW, banned_why="old")))["reasons"].rows
        assert over[1] == "nothing is known"

    def test_this_node_is_not_its_own_peer(self):
        assert blocks("mesh", known(facts_of("ann", "12D3KooWAnn")))["map"].rows == ()

    def test_a_question_that_failed_says_so(self):
        assert blocks("mesh", Known(problems={"mesh": "Not today."}))["map"].empty == "Not today."

    @pytest.mark.parametrize(("count", "left"), [(ROWS_MAX, 0), (ROWS_MAX + 7, 7)])
    def test_rows_are_bounded_and_the_rest_is_counted(self, count, left):
        page = blocks("mesh", peers=tuple(a_peer(f"p{n}", f"id-{n}") for n in range(count)))["map"]
        assert (len(page.rows), page.left_out) == (ROWS_MAX, left)


def test_the_ledger_by_peer_has_the_largest_first():
    accounts = (AccountStatus("id-1", SECOND, 0, 1, 0), AccountStatus("12D3KooWBob", 0, 9 * SECOND, 0, 3))
    page = blocks("account", accounts=accounts, peers=(a_peer(),), entries=4)
    assert page["by-peer"].rows == (
        ("bob", "0 s", "9.0 s", "−9.0 s", "0, 3"),
        ("id-1", "1.0 s", "0 s", "+1.0 s", "1, 0"),
    )
    assert page["sums"].rows[2] == ("Balance", "−8.0 s", "used more than it gave; 4 receipts")


def test_the_ledger_says_whether_it_was_verified():
    books = Books("3 entries hold", (("2026-01-01", "█", "1 s", "", ""),), (("now", "gave"),))
    page = blocks("account", Known(books=books))
    assert page["sums"].rows[-1] == ("Verified", "yes", "3 entries hold")
    assert (page["days"].rows, page["receipts"].rows) == (books.days, books.receipts)
    broken = blocks("account", Known(books=books, problems={"account": "Entry 2\n does not hold."}))
    assert broken["sums"].rows[-1] == ("Verified", "no", "Entry 2 does not hold.")


def test_findings_have_what_is_missing_first_and_say_what_to_do():
    found = (Finding("cpu", "good", "8 cores."), Finding("bwrap", "missing", "None.", "Nothing runs.", "apt install"))
    notes = blocks("doctor", Known(findings=found))["findings"].notes
    assert [(note.state, note.title) for note in notes] == [("missing", "bwrap"), ("good", "cpu")]
    assert notes[0].lines == ("None.", "Nothing runs.", "→ apt install")
    assert blocks("doctor")["findings"].empty.startswith("Looking")
    assert blocks("doctor", Known(problems={"doctor": "No."}))["findings"].empty == "No."


class TestPolicy:
    def test_reasons_say_since_when_and_what_would_change_them(self):
        gpu = GpuOffer("GPU-1", "NVIDIA A10G", 24576, 8192)
        reasons = (
            Reason("input", "Somebody is at the keyboard.", "Leave it for 5 min.", since_us=NOW - 12 * SECOND),
            Reason("hot", "It has \x1b 90 °C.", "", "GPU-1"),
        )
        told = PolicyTold(0, False, reasons, {"idle": "3 s"}, {"preset": "polite"})
        page = blocks("policy", Known(policy=told), gpus=(gpu,))
        assert [(note.title, note.lines) for note in page["reasons-now"].notes] == [
            ("Somebody is at the keyboard. (for 12 s)", ("→ Leave it for 5 min.",)),
            ("GPU 0: It has � 90 °C.", ()),
        ]
        assert (page["settings"].rows, page["facts"].rows) == ((("preset", "polite"),), (("idle", "3 s"),))

    def test_a_machine_that_works_says_so(self):
        (note,) = blocks("policy", Known(policy=PolicyTold(0, True, (), {}, {})))["reasons-now"].notes
        assert (note.state, note.title) == ("good", "Nothing keeps this machine from working for others.")

    def test_a_question_that_failed_says_so(self):
        assert blocks("policy", Known(problems={"policy": "Not\ntoday."}))["reasons-now"].empty == "Not today."
