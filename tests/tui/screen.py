"""What a person sees, and waiting for it."""

import asyncio
import contextlib

from tests.tui.desk import Desk
from textual.geometry import Region

from potluck_tui.app import PotluckApp
from potluck_tui.source import LocalNode

# Only ends a broken test; the other side may be a process on a slow machine.
PATIENCE_S = 60


def shown(app: PotluckApp, name: str) -> str:
    """The characters of a widget that are on the screen."""
    widget = app.screen_stack[0].query_one(f"#{name}")
    lines = widget.render_lines(Region(0, 0, *widget.outer_size))
    return "\n".join(line.text.rstrip() for line in lines)


def screen_lines(app: PotluckApp) -> list[str]:
    """The characters of the whole screen."""
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


@contextlib.asynccontextmanager
async def running(path, size=(80, 24), source=None):
    """The app without a terminal, and the pilot that presses its keys."""
    app = PotluckApp(source or LocalNode(path))
    async with app.run_test(size=size) as pilot:
        yield app, pilot


async def until(pilot, condition, what: str) -> None:
    """Wait for what arrives over the socket."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await pilot.pause(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} did not come within {PATIENCE_S} s") from None
    await pilot.pause()


async def until_shown(pilot, name: str, text: str) -> None:
    app = pilot.app
    await until(pilot, lambda: text in shown(app, name), f"{text!r} in {name}")


def on_screen(path, check, status=None, size=(80, 24)):
    """Run `check(app, pilot, desk)` with the app on a desk that has been heard."""

    async def scene():
        async with Desk(path, status) as desk, running(path, size) as (app, pilot):
            await until_shown(pilot, "name", desk.status.name)
            await check(app, pilot, desk)

    asyncio.run(scene())
