"""The screen against a control socket that says what the test wants; real nodes are in test_app_e2e.py."""

import asyncio

import pytest
from tests.tui.desk import Desk, a_call, a_peer, a_status, a_worker
from tests.tui.screen import on_screen, running, shown, until, until_shown

from potluck.errors import InvalidError, VersionError
from potluck.wire import control
from potluck.wire.control import AccountStatus
from potluck.wire.offer import GpuOffer
from potluck_tui.dialogs import Confirm, Help

BUSY = a_status(
    cpu_free_milli=0,
    memory_free_mib=1024,
    gpus=tuple(GpuOffer(f"GPU-{n}", "NVIDIA A10G", 24576, 8192) for n in range(8)),
    workers=tuple(a_worker(f"ann-{n}") for n in range(20)),
    calls=tuple(a_call(call=f"1.{n}", note="waiting for 1 A10G; 3 peers have it, none free") for n in range(20)),
    peers=tuple(a_peer(f"peer-{n}", f"id-{n}") for n in range(200)),
    accounts=(AccountStatus("id-1", 90_000_000, 30_000_000, 7, 2),),
    entries=9,
)
SECTIONS = ("devices", "workers", "calls", "peers", "ledger")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.sock"


def test_an_idle_machine_says_so_in_words(path):
    async def check(app, pilot, _desk):
        await until_shown(pilot, "sentence", "Lends 2 cores, 2.0 GiB, each caller in a sandbox (bwrap).")
        await until_shown(pilot, "workers", "Nobody uses this machine now.")
        await until_shown(pilot, "calls", "No calls from here now.")
        await until_shown(pilot, "peers", "No peers yet.")
        await until_shown(pilot, "devices", "░" * 20 + "  0 of 2 in use")

    on_screen(path, check)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_a_busy_machine_fits_without_scrolling(path, size):
    async def check(app, pilot, _desk):
        body = app.query_one("#body")
        assert body.max_scroll_y == 0
        assert body.max_scroll_x == 0
        for name in SECTIONS:
            assert body.region.contains_region(app.query_one(f"#{name}").region), name
        for name in SECTIONS[:-1]:
            await until_shown(pilot, name, " more, in a taller window")
        await until_shown(pilot, "ledger", "+1 min 00 s")
        await until_shown(pilot, "ledger", "9 receipts")

    status = BUSY if size[1] < 60 else a_status(**{f: getattr(BUSY, f) for f in ("peers", "accounts", "entries")})
    on_screen(path, check if size[1] < 60 else check_tall, status, size)


async def check_tall(app, pilot, _desk):
    await until(pilot, lambda: shown(app, "peers").count("peer-") > 25, "the peers")
    assert app.query_one("#body").max_scroll_y == 0


def test_a_small_window_scrolls_by_key(path):
    async def check(app, pilot, _desk):
        body = app.query_one("#body")
        assert body.max_scroll_y > 0
        await pilot.press("end")
        await until(pilot, lambda: body.scroll_y == body.max_scroll_y, "the end")

    on_screen(path, check, BUSY, (40, 12))


def test_a_long_row_is_cut_in_its_longest_column_and_keeps_its_state(path):
    worker = a_worker("ann-1")
    worker = type(worker)(worker.worker, "f" * 150, worker.caller, "running", worker.since_us)

    async def check(app, pilot, _desk):
        await until(pilot, lambda: "f…" in shown(app, "workers"), "the cut name")
        line = shown(app, "workers").splitlines()[1]
        assert line.rstrip().endswith("running  for 12 s")

    on_screen(path, check, a_status(workers=(worker,)))


def test_what_strangers_say_is_plain_text(path):
    peers = (a_peer("[red]bob[/red]\x1b[2J", note="[@click=app.quit]here[/] [/nonsense]"),)

    async def check(app, pilot, _desk):
        await until_shown(pilot, "peers", "bob")
        text = shown(app, "peers")
        assert "[red]bob[/red]�[2J" in text
        assert "\x1b" not in text
        assert "[@click" in text

    on_screen(path, check, a_status(peers=peers, paused="[/b] \x1b[31m"))


def test_resizing_lays_out_again(path):
    async def check(app, pilot, _desk):
        await until(pilot, lambda: shown(app, "peers").count("peer-") == 1, "the first peers")
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: shown(app, "peers").count("peer-") == 4, "more peers")

    on_screen(path, check, BUSY)


class TestKeys:
    def test_each_is_dimmed_when_it_would_do_nothing(self, path):
        async def check(app, pilot, desk):
            def useful():
                return [app.check_action(each, ()) for each in ("pause", "resume", "pause_now")]

            assert useful() == [True, None, True]
            desk.status = a_status(paused="games")
            await until_shown(pilot, "sentence", "games")
            assert useful() == [None, True, True]
            desk.status = a_status(offering=False)
            await until_shown(pilot, "sentence", "Only calls")
            assert useful() == [None, None, None]
            await pilot.press("p", "r", "n")
            assert not any(isinstance(each, control.Pause | control.Resume) for each in desk.asked)

        on_screen(path, check)

    @pytest.mark.parametrize(("answer", "paused"), [("y", True), ("n", False), ("escape", False)])
    def test_pause_now_asks_first(self, path, answer, paused):
        async def check(app, pilot, desk):
            await pilot.press("n")
            assert isinstance(app.screen, Confirm)
            await pilot.press(answer)
            assert not isinstance(app.screen, Confirm)
            before = len(desk.asked)
            await until(pilot, lambda: len(desk.asked) > before, "the next question")
            assert [each.now for each in desk.asked if isinstance(each, control.Pause)] == [True] * paused

        on_screen(path, check, a_status(workers=(a_worker(),)))

    def test_help_explains_every_section_and_the_screen_behind_goes_on(self, path):
        async def check(app, pilot, desk):
            await pilot.press("question_mark")
            assert isinstance(app.screen, Help)
            text = str(app.screen.query_one("Static").render())
            for word in ("This machine", "Workers", "Calls from here", "Peers", "Ledger", "Given", "Used", "balance"):
                assert word.lower() in text.lower()
            desk.status = a_status(paused="games")
            await until_shown(pilot, "sentence", "games")
            await pilot.press("escape")
            assert not isinstance(app.screen, Help)

        on_screen(path, check)

    def test_a_refusal_is_shown_and_the_screen_goes_on(self, path):
        async def check(app, pilot, desk):
            desk.refuse[control.Pause] = InvalidError("Not [today].", fix="Ask tomorrow.")
            await pilot.press("p")
            await until(pilot, lambda: len(app._notifications) == 1, "the notification")
            (notification,) = app._notifications
            assert "Not [today]." in notification.message
            assert "Ask tomorrow." in notification.message
            desk.status = a_status(name="still-here")
            await until_shown(pilot, "name", "still-here")

        on_screen(path, check)

    def test_q_ends_it_and_closes_the_connection(self, path):
        async def check(app, pilot, desk):
            await pilot.press("q")
            async with asyncio.timeout(10):
                await desk.left.wait()
            assert app.return_code == 0

        on_screen(path, check)


class TestLosingTheNode:
    def test_no_node_says_what_to_do_and_fills_when_one_comes(self, path):
        async def scene():
            async with running(path) as (app, pilot):
                await until_shown(pilot, "sentence", "No node answers on this machine.")
                await until_shown(pilot, "sentence", "potluck up")
                assert not app.query_one("#workers").display
                async with Desk(path):
                    await until_shown(pilot, "sentence", "Lends 2 cores")
                    assert app.query_one("#workers").display

        asyncio.run(scene())

    def test_figures_stay_while_it_is_away_and_it_is_found_again(self, path):
        async def check(app, pilot, desk):
            await desk.stop()
            await until_shown(pilot, "sentence", "No node answers on this machine.")
            await until_shown(pilot, "workers", "ann-1")
            assert app.check_action("pause", ()) is None
            async with Desk(path, a_status(name="again")):
                await until_shown(pilot, "name", "again")
            await until_shown(pilot, "workers", "Nobody uses")

        on_screen(path, check, a_status(workers=(a_worker(),)))

    @pytest.mark.parametrize(
        ("trouble", "words"),
        [
            (lambda desk: desk.refuse.update({control.AskStatus: InvalidError("Bad question.")}), "Bad question."),
            (lambda desk: setattr(desk, "garbage", b"\x00\x00\x00\x02hi"), "connection to the local node ended"),
            (lambda desk: setattr(desk, "garbage", b"\xff\xff\xff\xff"), "connection to the local node ended"),
            (lambda desk: setattr(desk, "silent", True), "does not answer"),
        ],
    )
    def test_a_node_gone_wrong_is_survived(self, path, monkeypatch, trouble, words):
        monkeypatch.setattr("potluck_tui.link.ANSWER_TIMEOUT_S", 0.3)

        async def check(_app, pilot, desk):
            trouble(desk)
            await until_shown(pilot, "sentence", words)
            desk.refuse, desk.garbage, desk.silent = {}, b"", False
            await until_shown(pilot, "sentence", "Lends 2 cores")

        on_screen(path, check)

    def test_another_version_is_named_and_tried_with_back_off(self, path, monkeypatch):
        pauses = []
        monkeypatch.setattr("potluck_tui.app.PotluckApp.lost", recording(pauses))

        async def scene():
            async with Desk(path) as desk:
                desk.greet = VersionError("The node is older.", fix="Upgrade the node.")
                async with running(path) as (_app, pilot):
                    await until(pilot, lambda: len(pauses) == 3, "three attempts")
                    await until_shown(pilot, "sentence", "The node is older.")
                    await until_shown(pilot, "sentence", "Upgrade the node.")
                    assert desk.left.is_set(), "a refused connection was not closed"

        asyncio.run(scene())
        assert pauses == [0.25, 0.5, 1.0]


def recording(pauses):
    from potluck_tui.app import PotluckApp

    lost = PotluckApp.lost

    def record(self, error, retry_s):
        pauses.append(retry_s)
        lost(self, error, retry_s)

    return record
