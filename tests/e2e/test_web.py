"""Functions that answer web requests: a real node, its gateway, sandboxes and clients."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h11
import httpx
import pytest
from tests.e2e import web_sample as sample
from tests.e2e.mesh import PATIENCE_S, Mesh, run_cli, wait_until
from tests.e2e.websocket import Socket, converse

from potluck.errors import InvalidError

# Any free port: several of these run at once.
GATEWAY = ("--gateway", "127.0.0.1:0", "--cpus", "2", "--memory-mib", "3000")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Mesh]:
    """A node that answers for the sample, while it runs."""
    mesh = Mesh(tmp_path_factory.mktemp("site"))
    patch = pytest.MonkeyPatch()
    try:
        node = mesh.node("solo", *GATEWAY)
        patch.setenv("POTLUCK_HOME", str(node.home))
        with sample.app.run(show_progress=False):
            yield mesh
    finally:
        patch.undo()
        mesh.stop()


@pytest.fixture
def raw(site) -> str:
    url = sample.asgi.get_web_url()
    assert url is not None
    return url


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as made:
        yield made


def facts(client, raw):
    return eval(client.get(raw).text)


def logs(site):
    done = run_cli(site.nodes[0], "app", "logs", "site")
    return done.stdout + done.stderr


def test_an_application_sees_the_request_and_none_of_our_secrets(client, raw):
    headers = {"Potluck-Key": "k", "Modal-Secret": "s", "X-Own": "1"}
    seen = eval(client.post(f"{raw}/facts?a=1&b=%20", headers=headers, content=b"body").text)
    assert (seen["method"], seen["query"], seen["root"]) == ("POST", "a=1&b=%20", "/site/raw")
    assert seen["path"] == "/site/raw/facts"
    assert seen["headers"]["x-own"] == "1"
    assert not {"potluck-key", "modal-secret"} & seen["headers"].keys()
    assert seen["started"] == 1


def test_events_are_seen_as_they_come(client, raw):
    with client.stream("GET", f"{raw}/numbers") as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert list(response.iter_text()) == [f"data: {number}\n\n" for number in range(3)]


def test_much_is_streamed_both_ways(client, raw):
    digest, size = 0, 0
    with client.stream("GET", f"{raw}/large") as response:
        for piece in response.iter_bytes():
            size += len(piece)
            digest += sum(piece[:1])
    assert size == 50_000_000

    def parts():
        for _ in range(300):
            yield bytes(100_000)

    assert client.post(f"{raw}/upload", content=parts()).text == "30000000"
    assert client.post(f"{raw}/upload", content=bytes(30_000_000)).text == "30000000"
    assert client.post(f"{raw}/upload", content=b"short").text == "5"


def test_a_slow_client_holds_up_its_own_answer_only(site, client, raw):
    with client.stream("GET", f"{raw}/large") as slow:
        pieces = slow.iter_bytes()
        next(pieces)
        before = site.nodes[0].status()
        for _ in range(20):
            assert client.get(f"{raw}/pid").status_code == 200
        assert memory_mib(site.nodes[0]) < before.memory_mib
        assert sum(map(len, pieces)) > 40_000_000


def memory_mib(node):
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) // 1024


def test_a_client_that_leaves_ends_its_request(client, raw):
    with client.stream("GET", f"{raw}/wait") as response:
        assert next(response.iter_bytes()) == b"begun"
    wait_until(lambda: facts(client, raw)["left"] == "told and cancelled", "the application being told")


def test_an_exception_is_a_500_that_tells_nothing(site, client, raw):
    response = client.get(f"{raw}/raises")
    assert response.status_code == 500
    assert "secret" not in response.text
    wait_until(lambda: "ValueError: a secret detail" in logs(site), "the traceback in the log")


def test_a_worker_that_dies_cuts_its_answer_and_another_takes_over(client, raw):
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{raw}/dies")
    assert client.get(f"{raw}/pid").status_code == 200


def test_a_worker_that_dies_before_it_answers_is_a_502(client, raw):
    pid = int(client.get(f"{raw}/pid").text)
    assert pid
    with httpx.Client(timeout=PATIENCE_S) as other:
        slow = other.build_request("GET", f"{raw}/kill")
        assert other.send(slow).status_code == 502


def test_many_requests_share_a_worker(raw):
    with httpx.Client(timeout=PATIENCE_S, limits=httpx.Limits(max_connections=20)) as client:
        client.get(f"{raw}/pid")
        begun = time.monotonic()
        import concurrent.futures

        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: client.get(f"{raw}/sleeps?2").text, range(10)))
        assert answers == ["slept"] * 10
        assert time.monotonic() - begun < 15


def test_wsgi(client, site):
    url = sample.old_style.web_url
    response = client.post(f"{url}/a%20b?c", content=bytes(300_000))
    assert (response.status_code, response.text) == (201, "/site/old-style 300000")
    assert response.headers["x-path"] == "/a b"


def test_a_method_answers_with_what_its_object_has_loaded(client, site):
    url = sample.Model.page.get_web_url()
    assert url.endswith("/site/model-page")
    assert client.get(url).text == "loaded loaded loaded"
    assert sample.Model().count.remote() == 3
    with pytest.raises(InvalidError, match="answers requests"):
        sample.Model.page.remote()


def test_a_server_of_ones_own(client, site):
    url = sample.own_server.web_url
    assert client.get(f"{url}/a%20b?c=d").text == "/a%20b?c=d /site/own-server"
    assert client.post(url, content=bytes(3_000_000)).text == "hellohellohello"


def test_a_token_opens_what_is_private(site, client):
    url = sample.private.web_url
    assert client.get(url).status_code == 401
    made = json.loads(run_cli(site.nodes[0], "token", "create", "--note", "me", "--json").stdout)
    good = {"Potluck-Key": made["key"], "Potluck-Secret": made["secret"]}
    assert client.get(url, headers=good).status_code == 200
    modal = {"Modal-Key": made["key"], "Modal-Secret": made["secret"]}
    assert client.get(url, headers=modal).status_code == 200
    assert client.get(url, headers={**good, "Potluck-Secret": "guess"}).status_code == 401
    kept = b"".join(path.read_bytes() for path in site.nodes[0].home.glob("state.sqlite*"))
    assert made["key"].encode() in kept
    assert made["secret"].encode() not in kept
    assert "me" in run_cli(site.nodes[0], "token", "ls").stdout
    assert run_cli(site.nodes[0], "token", "rm", made["key"]).returncode == 0
    assert client.get(url, headers=good).status_code == 401


def test_what_is_missing_in_the_image_is_named_in_the_log(site, client):
    assert client.get(sample.needs_fastapi.web_url).status_code == 502
    wait_until(lambda: 'image.uv_pip_install("fastapi[standard]")' in logs(site), "the fix in the log")


def test_names_that_are_not_ours_are_refused(client, raw):
    assert client.get(raw, headers={"Host": "evil.example"}).status_code == 421
    assert client.get(f"{raw}x").status_code == 404


def test_limits_on_what_comes(raw):
    port = int(raw.split(":")[2].split("/")[0])
    with dialled(port) as connection:
        connection.sendall(b"GET /site/raw HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * (1 << 17))
        assert answer(connection).status_code in (400, 431)
    with dialled(port) as connection:
        head = b"POST /site/raw/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        connection.sendall(head)
        assert answer(connection).status_code == 413


@contextmanager
def dialled(port) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        yield connection


def answer(connection):
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    while (event := parser.next_event()) is h11.NEED_DATA:
        parser.receive_data(connection.recv(65536))
    return event


def test_websockets(client, raw):
    converse(raw, ("one", "zwei", "x" * 900_000), 200)


def test_a_websocket_whose_client_is_gone_is_closed(client, raw):
    channel = Socket(raw)
    channel.connection.close()
    wait_until(lambda: facts(client, raw)["left"].startswith("closed"), "the application being told")


def test_what_answers_requests_is_not_called(site):
    with pytest.raises(InvalidError, match="answers requests"):
        sample.asgi.remote()
