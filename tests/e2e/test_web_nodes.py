"""Web requests over several nodes, versions and restarts: each test has nodes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.e2e import web_class, web_fastapi, web_session
from tests.e2e import web_sample as sample
from tests.e2e.mesh import PATIENCE_S, run_cli, wait_until
from tests.e2e.websocket import Socket
from wsproto.events import TextMessage

import potluck
from potluck import found

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ("--gateway", "127.0.0.1:0", "--cpus", "2", "--memory-mib", "3000")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as made:
        yield made


def test_another_machine_answers_and_its_end_cuts_what_it_answers(mesh, use_node, client):
    """The gateway's node runs nothing itself, and trusts nobody."""
    caller = use_node(mesh.caller("cas", "--gateway", "127.0.0.1:0"))
    bob = mesh.provider("bob")
    wait_until(lambda: caller.status().peers, "finding bob")
    with sample.app.run(show_progress=False):
        raw = sample.asgi.get_web_url()
        assert len(client.get(f"{raw}/large").content) == 50_000_000
        assert client.post(f"{raw}/upload", content=bytes(30_000_000)).text == "30000000"
        channel = Socket(raw)
        channel.send(TextMessage(data="x" * 900_000))
        assert channel.message() == "x" * 900_000
        with client.stream("GET", f"{raw}/wait") as response:
            pieces = response.iter_bytes()
            assert next(pieces) == b"begun"
            bob.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                next(pieces)
        mesh.provider("eve")
        assert client.get(f"{raw}/pid").status_code == 200


def test_a_session_stays_with_its_worker_while_that_lives(mesh, use_node, client):
    use_node(mesh.caller("cas", "--gateway", "127.0.0.1:0"))
    mesh.provider("bob")
    mesh.provider("eve")
    with web_session.app.run(show_progress=False), ThreadPoolExecutor(8) as pool:
        url = web_session.count.get_web_url()

        def ask(number, name="potluck-session"):
            headers = {name: str(number)} if name != "cookie" else {name: f"potluck-session={number}"}
            return client.get(url, headers=headers).text.split()

        # At once, so that there are workers on both machines.
        wait_until(lambda: len({where for where, _ in pool.map(ask, range(20))}) > 1, "several workers")
        homes = {number: ask(number)[0] for number in range(6)}
        assert len(set(homes.values())) > 1
        for name in ("potluck-session", "cookie"):
            again = list(pool.map(ask, [*homes] * 3, [name] * 18))
            assert [where for where, _ in again] == [*homes.values()] * 3
        gone = homes[0]
        assert client.get(f"{url}/end", headers={"potluck-session": "0"}).status_code == 502
        assert ask(0)[0] != gone
        assert ask(0)[0] == ask(0)[0]


def test_fastapi(mesh, use_node, client):
    use_node(mesh.node("solo", *GATEWAY))
    with web_fastapi.app.run(show_progress=False):
        url = web_fastapi.add.get_web_url()
        assert client.get(f"{url}?left=2&right=3").json() == {"sum": 5}
        assert client.get(f"{url}?left=x").status_code == 422
        assert "Swagger" in client.get(f"{url}/docs").text
        stream = f"{web_fastapi.words.get_web_url()}/stream/4"
        assert client.get(stream).text == "0 1 2 3 "
        assert client.post(web_fastapi.Model.predict.get_web_url(), json={"x": 5}).json() == 105


def test_a_class_that_is_a_server(mesh, use_node, client, monkeypatch):
    node = use_node(mesh.node("solo", *GATEWAY))
    monkeypatch.setattr(found, "_link", None)
    with web_class.app.run(show_progress=False):
        assert client.get(f"{web_class.Open.get_url()}/x").text.startswith("from the class")
        assert client.get(web_class.Closed.get_url()).status_code == 401
    assert run_cli(node, "deploy", "tests/e2e/web_class.py").returncode == 0
    server = potluck.Server.from_name("served", "Open")
    assert server.get_url().endswith("/served/open")
    assert client.get(server.get_url()).status_code == 200
    found._link.close()


def test_versions_change_without_a_failed_request(mesh, use_node, tmp_path):
    """A new version is deployed under requests; each is answered, by one of the two, and the URL stays."""
    node = use_node(mesh.node("solo", *GATEWAY))
    source = (ROOT / "tests" / "e2e" / "web_version.py").read_text()
    program = tmp_path / "version.py"
    program.write_text(source)
    first = deploy(node, program)
    client = httpx.Client(timeout=PATIENCE_S)
    assert client.get(first).text == "one"
    program.write_text(source.replace('"one"', '"two"'))
    with subprocess.Popen(
        [sys.executable, "-m", "potluck.cli.main", "deploy", "-q", str(program)], env=node.env
    ) as deploying:
        seen = set()
        while deploying.poll() is None or "two" not in seen:
            response = client.get(first)
            assert response.status_code == 200
            seen.add(response.text)
    assert deploying.returncode == 0
    assert seen == {"one", "two"}
    node.stop()
    node.start()
    again = json.loads(run_cli(node, "deploy", "--json", str(program)).stdout)["functions"][0]["url"]
    assert client.get(again).text == "two"
    run_cli(node, "app", "stop", "version")
    assert client.get(again).status_code == 404


def deploy(node, program):
    done = run_cli(node, "deploy", "--json", str(program))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["functions"][0]["url"]


def test_the_example_is_served(mesh, use_node):
    node = use_node(mesh.node("solo", *GATEWAY))
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "potluck.cli.main", "serve", str(ROOT / "examples" / "web.py")],
        env=node.env, stderr=subprocess.PIPE, text=True,
    ) as serving:  # fmt: skip
        assert serving.stderr
        urls = {}
        while len(urls) < 3:
            name, arrow, url = serving.stderr.readline().partition("←")
            if arrow:
                urls[name.strip()] = url.strip()
        client = httpx.Client(timeout=PATIENCE_S)
        assert client.get(urls["stream"]).text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert client.get(urls["hello"] + "/you").text == "Hello from /you\n"
        assert "Directory listing" in client.get(urls["files"] + "/").text
        os.kill(serving.pid, signal.SIGINT)
