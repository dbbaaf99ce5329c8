"""Pages that find something out: the journal, verified by the terminal itself, and the machine, by the doctor."""

import json
import sys

import pytest
from tests.ledger.test_journal import PROVIDER, signed
from tests.tui.desk import a_status
from tests.tui.screen import on_screen, shown, until, until_shown

from potluck.wire import control
from potluck_ledger.journal import Journal
from potluck_tui import looks

FOUND = [{"about": "sandbox", "state": "weak", "says": "word " * 40, "means": "", "fix": "apt install [b]x"}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.sock"


@pytest.fixture
def records(tmp_path):
    journal = Journal(tmp_path / "journal", PROVIDER)
    for number in (1, 2, 3):
        journal.append(signed(number, lease_us=2_000_000, ended_us=90_000_000), 90_000_000)
    found = [tuple(record) for record in journal.records()]
    journal.close()
    return found


def doctor(monkeypatch, program):
    monkeypatch.setattr(looks, "DOCTOR", (sys.executable, "-c", program))


class TestLedger:
    def test_the_journal_is_fetched_verified_and_shown_by_day(self, path, records):
        async def check(app, pilot, desk):
            desk.owner, desk.journal = PROVIDER.peer, records
            await pilot.press("5")
            await until_shown(pilot, "sums", "3 entries: every signature and the chain hold")
            # Laid out one after the other.
            await until_shown(pilot, "days", "1970-01-01  ████████████  6.0 s")
            await until(pilot, lambda: shown(app, "receipts").count("by both") == 3, "three receipts")

        on_screen(path, check)

    def test_one_that_does_not_hold_is_named_and_u_looks_again(self, path, records):
        async def check(_app, pilot, desk):
            desk.owner, desk.journal = PROVIDER.peer, [records[0], records[2]]
            await pilot.press("5")
            await until_shown(pilot, "sums", "The journal does not verify.")
            desk.journal = records
            await pilot.press("u")
            await until_shown(pilot, "sums", "3 entries: every signature")

        on_screen(path, check)

    def test_too_many_for_a_page_are_left_to_the_command(self, path, records, monkeypatch):
        monkeypatch.setattr(looks, "ENTRIES_MAX", 2)

        async def check(_app, pilot, desk):
            desk.owner, desk.journal = PROVIDER.peer, records
            await pilot.press("5")
            await until_shown(pilot, "sums", "There are more than 2 receipts")
            assert [each.after for each in desk.asked if isinstance(each, control.AskJournal)] == [0, 1]

        on_screen(path, check, size=(120, 40))


class TestDoctor:
    def test_its_findings_are_broken_at_words_and_are_plain_text(self, path, monkeypatch):
        doctor(monkeypatch, f"print({json.dumps(json.dumps(FOUND))})")

        async def check(app, pilot, _desk):
            await pilot.press("7")
            await until_shown(pilot, "findings", "! sandbox")
            text = shown(app, "findings")
            assert text.count("word") == 40
            assert "→ apt install [b]x" in text
            assert "! reach" in text
            assert app.query_one("#doctor").max_scroll_x == 0

        on_screen(path, check)

    @pytest.mark.parametrize(
        ("program", "words"),
        [
            ("raise SystemExit('no such driver')", "no such driver"),
            ("print('{')", "could not be looked at"),
            ("import time; time.sleep(60)", "within 0.5 s"),
        ],
    )
    def test_one_that_fails_says_so_and_u_looks_again(self, path, monkeypatch, program, words):
        monkeypatch.setattr(looks, "DOCTOR_TIMEOUT_S", 0.5 if "sleep" in program else 30.0)
        doctor(monkeypatch, program)

        async def check(_app, pilot, desk):
            await pilot.press("7")
            await until_shown(pilot, "findings", words)
            monkeypatch.setattr(looks, "DOCTOR_TIMEOUT_S", 30.0)
            doctor(monkeypatch, "print('[]')")
            await pilot.press("u")
            await until_shown(pilot, "findings", "! reach")
            assert desk.status.name == "ann"

        on_screen(path, check)

    def test_leaving_meanwhile_ends_it(self, path, tmp_path, monkeypatch):
        pid = tmp_path / "pid"
        doctor(monkeypatch, f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(60)")

        async def check(_app, pilot, _desk):
            await pilot.press("7")
            await until(pilot, lambda: pid.exists() and pid.read_text().endswith(" "), "the doctor")

        on_screen(path, check, a_status())
        assert not alive(int(pid.read_text()))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
