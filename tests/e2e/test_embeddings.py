"""A real model behind an endpoint as OpenAI's: from zero, streamed to curl and a browser, rolled over and back."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest
from tests.e2e.load import Load
from tests.e2e.mesh import PATIENCE_S, Mesh, run_cli, wait_until
from tests.e2e.websocket import Socket
from wsproto.events import TextMessage

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "embeddings.py"
# As sentence-transformers has them.
SENTENCE, BEGINNING = "This is an example sentence", [0.0676569, 0.0634959, 0.0487131, 0.0793049]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield mesh.node("solo", "--gateway", "127.0.0.1:0", "--cpus", "2", "--memory-mib", "3000")
    finally:
        mesh.stop()


@pytest.fixture(scope="module")
def url(node):
    return deploy(node, SOURCE)


def deploy(node, program):
    done = run_cli(node, "deploy", "--json", str(program))
    assert done.returncode == 0, done.stderr
    functions = {each["name"]: each for each in json.loads(done.stdout)["functions"]}
    return next(each["url"] for each in functions.values() if "url" in each)


def ask(client, url, text=SENTENCE):
    return client.post(f"{url}/v1/embeddings", json={"input": text}, timeout=PATIENCE_S * 2)


class Page:
    """A page in a browser without a window, asked by the protocol of its developer tools."""

    def __init__(self, browser, url):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
        self._process = subprocess.Popen(
            [browser, *flags, f"--user-data-dir={self._profile.name}", url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port = Path(self._profile.name) / "DevToolsActivePort"
        wait_until(lambda: port.exists() and port.read_text(), "the browser's start")
        self._tools = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        wait_until(self._targets, "the page")
        self._socket = Socket(self._targets()[0]["webSocketDebuggerUrl"].replace("ws://", "http://"))

    def _targets(self):
        return [each for each in httpx.get(self._tools).json() if each["type"] == "page"]

    def evaluate(self, expression):
        ask = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": expression}}
        self._socket.send(TextMessage(data=json.dumps(ask)))
        return json.loads(self._socket.message())["result"]["result"].get("value")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._profile.cleanup()


def test_from_zero_with_the_numbers_of_the_model(url):
    answer = ask(httpx, url).json()
    assert (answer["object"], answer["model"]) == ("list", "all-MiniLM-L6-v2")
    assert answer["data"][0]["embedding"][:4] == pytest.approx(BEGINNING, abs=1e-5)
    assert len(answer["data"][0]["embedding"]) == 384


def test_streamed_to_curl(url):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    body = json.dumps({"input": ["a cat", SENTENCE], "stream": True})
    done = subprocess.run(
        ["curl", "-sSN", f"{url}/v1/embeddings", "-H", "content-type: application/json", "-d", body],
        check=True, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    *events, end = done.stdout.split("\n\n")[:-1]
    assert end == "data: [DONE]"
    second = json.loads(events[1].removeprefix("data: "))
    assert (len(events), second["index"]) == (2, 1)
    assert second["embedding"][:4] == pytest.approx(BEGINNING, abs=1e-5)


def test_streamed_to_a_browser(url):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with Page(browser, f"{url}/") as page:
        wait_until(lambda: page.evaluate("document.title") == "done", "the end of the stream")
        found = page.evaluate("document.getElementById('found').innerText").splitlines()
    assert [line.split(":")[1].split(",")[0] for line in found] == [" 384 numbers"] * 3
    alike = [float(line.split(", ")[1].split()[0]) for line in found]
    assert alike == pytest.approx([1, 0.55, 0.07], abs=0.01)


def test_rolled_over_and_back_under_load(node, url, tmp_path):
    program = tmp_path / "embeddings.py"
    program.write_text(SOURCE.read_text().replace('MODEL = "all-MiniLM-L6-v2"', 'MODEL = "next"'))
    with Load(lambda client: ask(client, url), lambda response: response.json()["model"], threads=2) as load:
        wait_until(lambda: load.answered, "an answer")
        assert deploy(node, program) == url
        wait_until(lambda: load.answered[-1] == "next", "the new version")
        done = run_cli(node, "app", "rollback", "embeddings")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: load.answered[-1] == "all-MiniLM-L6-v2", "the version before")
    assert load.failed == []
    assert set(load.counts) == {"all-MiniLM-L6-v2", "next"}
