"""The screen of a real node, with real work on it."""

import asyncio
import subprocess
import sys
import textwrap

import pytest
from tests.e2e.mesh import wait_until
from tests.tui.screen import running, shown, until, until_shown

pytestmark = pytest.mark.e2e

CALLER = textwrap.dedent("""
    from tests.e2e import sample
    with sample.app.run(show_progress=False):
        sample.sleep.remote(300)
""")


def socket_of(node):
    return node.home / "node.sock"


def test_pause_resume_and_the_policy_change_the_node(mesh):
    ann = mesh.provider("ann")

    async def scene():
        async with running(socket_of(ann)) as (_app, pilot):
            await until_shown(pilot, "sentence", "Lends 1 core, 1.0 GiB")
            await until_shown(pilot, "name", "ann · mesh local")
            await pilot.press("p")
            await until_shown(pilot, "sentence", "Paused: no new work.")
            assert ann.status().paused == "paused by the owner"
            await pilot.press("r")
            await until_shown(pilot, "sentence", "Lends 1 core")
            assert ann.status().paused == ""
            await edit_the_policy(pilot)
            assert "grace_s = 7" in (ann.home / "config.toml").read_text()

    asyncio.run(scene())


async def edit_the_policy(pilot):
    await pilot.press("6")
    await until_shown(pilot, "settings", "grace_s")
    await pilot.press("e", *"grace_s = no")
    await until(pilot, lambda: "✗" in preview(pilot.app), "what is wrong with it")
    await pilot.press("backspace", "backspace", "7")
    await until(pilot, lambda: "✓" in preview(pilot.app), "what it would do")
    await pilot.press("ctrl+s")
    await until(pilot, lambda: len(pilot.app.screen_stack) == 1, "the saving")
    await until_shown(pilot, "settings", "7.0")


def preview(app):
    return str(app.screen.query_one("#preview").render())


def test_a_node_that_stops_and_starts_again_is_found_again(mesh):
    ann = mesh.provider("ann")

    async def scene():
        async with running(socket_of(ann)) as (app, pilot):
            await until_shown(pilot, "sentence", "Lends 1 core")
            await asyncio.to_thread(ann.stop)
            await until_shown(pilot, "sentence", "No node answers on this machine.")
            await until_shown(pilot, "devices", "0 of 1 in use")
            await asyncio.to_thread(ann.start)
            await until_shown(pilot, "sentence", "Lends 1 core")
            await pressed_until_paused(pilot, app)

    asyncio.run(scene())


async def pressed_until_paused(pilot, app):
    """A node that has only just started, on a machine under load, may lose a question: the terminal says so, and one
    presses again."""
    while "Paused" not in shown(app, "sentence"):
        app.clear_notifications()
        await pilot.press("p")
        await until(pilot, lambda: "Paused" in shown(app, "sentence") or app._notifications, "an answer")


def test_work_for_others_shows_on_both_sides_and_pause_now_ends_it(mesh):
    bob = mesh.caller("bob")
    ann = mesh.provider("ann")
    wait_until(lambda: bob.status().peers, "finding ann")
    client = subprocess.Popen([sys.executable, "-c", CALLER], env=bob.env)
    try:
        asyncio.run(scene_of_work(ann, bob))
    finally:
        client.kill()
        client.wait()


async def scene_of_work(ann, bob):
    async with running(socket_of(ann)) as (app, pilot):
        await until_shown(pilot, "workers", "running")
        await until_shown(pilot, "workers", "sleep")
        assert bob.status().peer[-8:] in shown(app, "workers")
        await until_shown(pilot, "devices", "1 of 1 in use")
        await see_from_caller(bob)
        await pilot.press("n", "y")
        await until_shown(pilot, "workers", "Nobody uses this machine now.")
        assert not ann.status().workers
        await until_shown(pilot, "ledger", "1 receipt")
        await until_shown(pilot, "ledger", "1 input run for others")


async def see_from_caller(bob):
    async with running(socket_of(bob)) as (app, pilot):
        await until_shown(pilot, "calls", "0 of 1 done")
        await until_shown(pilot, "sentence", "Only calls")
        await until_shown(pilot, "peers", "ann")
        await until(pilot, lambda: "busy" in shown(app, "peers"), "ann is busy")
        await pilot.press("2")
        await until_shown(pilot, "placed", "› sleep")
        await until_shown(pilot, "log", "It has printed nothing.")
        await pilot.press("4")
        await until_shown(pilot, "kept", "›")
        await until_shown(pilot, "budget", "Goes next")
        await until_shown(pilot, "volumes", "No volumes.")
