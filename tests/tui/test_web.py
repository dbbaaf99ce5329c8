"""The terminal in a browser: who gets in, and that it works, by a small client and in Chromium."""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, web

from potluck_tui import web as ours
from potluck_tui.web import HOST, Browser

# Only ends a broken test.
PATIENCE_S = 60


@contextlib.contextmanager
def served(home):
    """`potluck tui --web --demo`: its address, and its process."""
    env = os.environ | {"POTLUCK_HOME": str(home)}
    command = [sys.executable, "-m", "potluck.cli.main", "tui", "--web", "--demo"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    try:
        line = process.stdout.readline().decode()
        yield line.split()[-1], process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
        process.stdout.close()


async def heard(ws, word):
    """What comes until `word` is in it."""
    seen = b""
    async with asyncio.timeout(PATIENCE_S):
        while word not in seen:
            seen += await ws.receive_bytes()
    return seen


def test_a_window_is_a_terminal_and_q_ends_it(tmp_path):
    async def scene(url):
        async with ClientSession() as session:
            async with session.get(url) as answer:
                page = await answer.text()
                assert answer.status == 200
                assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert {urlsplit(each).hostname for each in re.findall(r'(?:https?|ws):[^"\s]+', page)} == {HOST}
            async with session.ws_connect(f"{url}ws?width=80&height=24") as ws:
                await heard(ws, b"Lends 8 cores")
                await ws.send_json(["stdin", "2"])
                await heard(ws, b"Running here")
                await ws.send_json(["stdin", "q"])
                async with asyncio.timeout(PATIENCE_S):
                    while not (await ws.receive()).type.name.startswith("CLOSE"):
                        pass

    with served(tmp_path) as (url, _):
        assert urlsplit(url).hostname == HOST
        asyncio.run(scene(url))


def below(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def lives(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_terminal_outlives_the_server(tmp_path, how):
    async def scene(url, process):
        async with ClientSession() as session, session.ws_connect(f"{url}ws") as ws:
            await heard(ws, b"Lends 8 cores")
            (child,) = below(process.pid)
            process.send_signal(how)
            async with asyncio.timeout(PATIENCE_S):
                while lives(child):
                    await asyncio.sleep(0.02)

    with served(tmp_path) as (url, process):
        asyncio.run(scene(url, process))


@contextlib.asynccontextmanager
async def in_process():
    with socket.create_server((HOST, 0)) as listening:
        browser = Browser(("true",), listening)
        runner = web.AppRunner(await browser.make())
        await runner.setup()
        await web.SockSite(runner, listening).start()
        async with ClientSession() as session:
            yield browser, session
        await runner.cleanup()


def test_nothing_is_there_without_the_secret_path():
    async def scene():
        async with in_process() as (browser, session):
            wrong = Browser(("true",), socket.socket()).token
            assert len(wrong) >= 22
            assert wrong != browser.token
            for path in ("", "ws", "static/js/textual.js", f"{wrong}/", f"{wrong}/ws", f"../{browser.token[:-1]}/"):
                async with session.get(f"{browser.public_url}/{path}") as answer:
                    assert answer.status == 404

    asyncio.run(scene())


def test_windows_are_bounded(monkeypatch):
    monkeypatch.setattr(ours, "WINDOWS_MAX", 0)

    async def scene():
        async with in_process() as (browser, session), session.get(f"{browser.url}ws") as answer:
            assert answer.status == 503
            assert "close one" in await answer.text()

    asyncio.run(scene())


class Chromium:
    """A page, driven by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

    def __init__(self, ws):
        self.ws, self.frames, self._number = ws, b"", 0

    async def do(self, method, **parameters):
        self._number += 1
        await self.ws.send_json({"id": self._number, "method": method, "params": parameters})
        while (message := await self._next()).get("id") != self._number:
            pass
        assert "result" in message, message
        return message["result"]

    async def _next(self):
        message = json.loads((await self.ws.receive()).data)
        if message.get("method") == "Network.webSocketFrameReceived":
            response = message["params"]["response"]
            self.frames += base64.b64decode(response["payloadData"]) if response["opcode"] == 2 else b""
        return message

    async def until_written(self, word):
        async with asyncio.timeout(PATIENCE_S):
            while word not in self.frames:
                await self._next()
        self.frames = b""

    async def press(self, key):
        await self.do("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        await self.do("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            await self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def evaluate(self, code):
        return (await self.do("Runtime.evaluate", expression=code))["result"]["value"]


@contextlib.contextmanager
def chromium(profile):
    """Where its DevTools listen."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--window-size=1000,640", f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(["chromium", *flags], stderr=subprocess.PIPE)
    try:
        yield debugging_port(process)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def debugging_port(process):
    for line in process.stderr:
        if found := re.search(rb"DevTools listening on ws://[^:]+:(\d+)/", line):
            return int(found[1])
    raise AssertionError("Chromium ended")


@contextlib.asynccontextmanager
async def first_page(port):
    async with ClientSession() as session:
        async with session.get(f"http://{HOST}:{port}/json/list") as answer:
            (page,) = [each for each in await answer.json(content_type=None) if each["type"] == "page"]
        async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=1 << 26) as ws:
            yield Chromium(ws)


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed (400 MB)")
def test_in_chromium(tmp_path):
    async def scene(url, port):
        async with first_page(port) as page:
            await page.do("Network.enable")
            await page.do("Page.enable")
            await page.do("Page.navigate", url=url)
            await page.until_written(b"Lends 8 cores")
            assert await page.evaluate("document.title") == "Potluck"
            await page.click(500, 400)
            await page.press("2")
            await page.until_written(b"Running here")
            await page.press("q")
            async with asyncio.timeout(PATIENCE_S):
                while not await page.evaluate("document.body.classList.contains('-closed')"):
                    await asyncio.sleep(0.05)

    with served(tmp_path) as (url, _), chromium(tmp_path / "profile") as port:
        asyncio.run(scene(url, port))
