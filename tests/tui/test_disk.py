"""The page of images and disk: in words, and with its keys."""

import pytest
from tests.tui.desk import NOW, SECOND, a_status
from tests.tui.screen import on_screen, shown, until, until_shown

from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire.control import ImageFacts, StoreFacts
from potluck.wire.pins import PinImage
from potluck_ledger.keys import PrivateKey
from potluck_ledger.volume_heads import VolumeHead, sign_head
from potluck_tui.dialogs import Confirm
from potluck_tui.disk import Disk, VolumeFacts, disk_blocks, size

DAY = 86_400 * SECOND
OLD = ImageFacts("aa" * 32, "torch \x1b[2J", 3 << 30, 1 << 30, NOW - 3 * DAY, False)
HELD = ImageFacts("bb" * 32, "base", 1 << 30, 10 << 20, NOW - 9 * DAY, True)
SNAPSHOT = ImageFacts("cc" * 32, "", 2 << 30, 1 << 20, NOW - 8 * DAY, False, True, ("snapshot-until-ever",))
FRESH = ImageFacts("dd" * 32, "fresh", 1 << 20, 1 << 20, NOW - 5 * SECOND, False)
STORE = StoreFacts(3 << 30, 2 << 30, 1 << 30, 16 << 30, 100, 7 << 30)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.sock"


def head(**changes):
    plain = {
        "volume": "v1", "version": 4, "image": "ab" * 32, "parent": "", "at_us": NOW - 60 * SECOND, "by": "ann",
        "what": "commit", "changed": 1, "removed": 0, "files": 2, "bytes": 5 << 20, "name": "weights",
    }  # fmt: skip
    return sign_head(PrivateKey.generate(), VolumeHead(**plain | changes))


def test_sizes_are_for_people():
    assert [size(each) for each in (0, 1023, 1024, 150 << 10, 3 << 30, 5 << 40, 2**60)] == [
        "0 B", "1023 B", "1.0 KiB", "150 KiB", "3.0 GiB", "5.0 TiB", "1048576 TiB",
    ]  # fmt: skip


def test_what_is_kept_what_it_takes_and_what_goes_next():
    page = disk_blocks(
        Disk((FRESH, OLD, SNAPSHOT, HELD), STORE, (VolumeFacts("w", 4, 5 << 20, NOW - DAY, 1, 2),)), NOW, ""
    )
    budget = {row[0]: row[2] for row in page["budget"].rows}
    assert budget == {
        "Budget": "4.0 GiB of 16.0 GiB for images and volumes",
        "Disk": "7.0 GiB free",
        "Unneeded": "1.0 GiB that no image needs; key c clears it",
        "Goes next": "torch �[2J, 1.0 GiB, not used for 3 d 0 h; only when room is needed",
    }
    assert [row[-1] for row in page["kept"].rows] == ["", "", "pinned: a snapshot, damaged", "in use"]
    assert page["kept"].keys == tuple(each.image for each in (FRESH, OLD, SNAPSHOT, HELD))
    assert page["volumes"].rows == (("w", "4", "5.0 MiB", "1 d 0 h ago", "1 of 2 copies"),)


def test_when_all_is_in_use_nothing_goes():
    page = disk_blocks(Disk((HELD, SNAPSHOT), StoreFacts(0, 0, 0, 1, 0), (), True), NOW, "")
    assert page["budget"].rows[-1][2].startswith("nothing")
    assert [row[0] for row in page["budget"].rows] == ["Budget", "Goes next"]
    assert page["volumes"].rows[-1][3] == "potluck volume list"


def test_before_the_answer_and_after_a_failure_it_says_so():
    assert {block.empty for block in disk_blocks(None, NOW, "").values()} == {"Asking the node …"}
    assert {block.empty for block in disk_blocks(None, NOW, "Not today.").values()} == {"Not today."}


@pytest.mark.parametrize("dimensions", [(80, 24), (120, 40)])
def test_an_image_is_chosen_with_the_arrows_and_deleted_after_a_question(path, dimensions):
    async def check(app, pilot, desk):
        desk.images, desk.volumes = (FRESH, OLD), {"v1": ("weights", head())}
        await pilot.press("4")
        await until_shown(pilot, "kept", "› dddddddddddd")
        assert app.query_one("#images").max_scroll_x == 0
        await until_shown(pilot, "volumes", "weights")
        await until_shown(pilot, "volumes", "1 of 2 copies")
        await pilot.press("down", "down")
        await until_shown(pilot, "kept", "› aaaaaaaaaaaa")
        await pilot.press("d")
        assert isinstance(app.screen, Confirm)
        assert "It frees 1.0 GiB" in str(app.screen.query_one("Static").render())
        await pilot.press("n")
        assert not any(isinstance(each, control.PruneImages) for each in desk.asked)
        await pilot.press("d", "y")
        await until(pilot, lambda: "aaaaaaaaaaaa" not in shown(app, "kept"), "the image's end")
        assert [each.images for each in desk.asked if isinstance(each, control.PruneImages)] == [(OLD.image,)]
        assert [each.message for each in app._notifications] == ["5.0 MiB won back."]
        await until_shown(pilot, "kept", "› dddddddddddd")

    on_screen(path, check, a_status(), dimensions)


def test_an_image_is_pinned_and_let_go_after_a_question(path):
    async def check(app, pilot, desk):
        desk.images = (FRESH,)
        await pilot.press("4")
        await until_shown(pilot, "kept", "› dddddddddddd")
        await pilot.press("i")
        assert "Pin fresh?" in str(app.screen.query_one("Static").render())
        await pilot.press("y")
        await until_shown(pilot, "kept", "pinned")
        await pilot.press("i")
        assert "Unpin fresh?" in str(app.screen.query_one("Static").render())
        await pilot.press("y")
        await until(pilot, lambda: "pinned" not in shown(app, "kept"), "its being let go")
        assert [each.pin for each in desk.asked if isinstance(each, PinImage)] == [True, False]

    on_screen(path, check)


def test_what_no_image_needs_is_cleared_after_a_question(path):
    async def check(app, pilot, desk):
        await pilot.press("4")
        await until_shown(pilot, "kept", "No images yet.")
        assert app.check_action("act", ("delete_image",)) is None
        titles = {each.title for each in app.get_system_commands(app.screen)}
        assert {"Clear", "Look again"} <= titles
        assert not {"Del", "Pin", "Stop app"} & titles
        await pilot.press("c")
        assert "(1.0 GiB)" in str(app.screen.query_one("Static").render())
        await pilot.press("y")
        await until(pilot, lambda: any(isinstance(each, control.PruneImages) for each in desk.asked), "the clearing")

    on_screen(path, check)


def test_a_refusal_is_said_and_the_page_goes_on(path):
    async def check(app, pilot, desk):
        desk.images = (OLD,)
        desk.refuse[control.PruneImages] = InvalidError("Images are being [built].")
        await pilot.press("4")
        await until_shown(pilot, "kept", "› aaaa")
        await pilot.press("d", "y")
        await until(pilot, lambda: len(app._notifications) == 1, "the notification")
        assert "Images are being [built]." in next(iter(app._notifications)).message

    on_screen(path, check)


def test_a_store_that_cannot_be_read_says_so(path):
    async def check(_app, pilot, desk):
        desk.refuse[control.AskImages] = InvalidError("The disk is gone.")
        await pilot.press("4")
        await until_shown(pilot, "kept", "The disk is gone.")

    on_screen(path, check)


def test_a_volume_without_a_version_has_no_figures(path):
    async def check(_app, pilot, desk):
        desk.volumes = {"v1": ("[b]new", b"\xff")}
        await pilot.press("4")
        await until_shown(pilot, "volumes", "[b]new")

    on_screen(path, check)
