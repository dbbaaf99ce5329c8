"""A node of somebody else answers for an app: the owner's node places the calls, the other has the clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e import web_sample as sample
from tests.e2e.mesh import PATIENCE_S, Mesh, Node, run_cli, wait_until
from tests.e2e.websocket import converse

from potluck_ledger.keys import load_or_create

GATEWAY = ("--gateway", "127.0.0.1:0")
# Apps that the other node answers for: by its owner's leave, and without.
NAMED, UNNAMED, AWAY = "site", "other", "away"


def prepared(folder: Path, name: str) -> str:
    """Make a node's key ahead, since each is to know the other's; returns its peer id."""
    (folder / name).mkdir()
    return load_or_create(folder / name / "node.key").peer


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[tuple[Mesh, str]]:
    """An owner's node that runs the sample, and where the other one's gateway is reached."""
    folder = tmp_path_factory.mktemp("gateways")
    owner, other = prepared(folder, "owner"), prepared(folder, "other")
    absent = prepared(folder, "absent")
    (folder / "owner" / "config.toml").write_text(f'[gateways]\n{NAMED} = ["{other}"]\n')
    forward = {NAMED: owner, UNNAMED: owner, AWAY: absent}
    lines = "\n".join(f'{app} = "{peer}"' for app, peer in forward.items())
    (folder / "other" / "config.toml").write_text(f"[forward]\n{lines}\n")
    mesh, patch = Mesh(folder), pytest.MonkeyPatch()
    try:
        node = mesh.node("owner", *GATEWAY, "--cpus", "2", "--memory-mib", "3000")
        mesh.caller("other", *GATEWAY)
        patch.setenv("POTLUCK_HOME", str(node.home))
        with sample.app.run(show_progress=False):
            yield mesh, reached_at(mesh.nodes[1])
    finally:
        patch.undo()
        mesh.stop()


def reached_at(node: Node) -> str:
    found = [line.rsplit(" ", 1)[1] for line in node.log.read_text().splitlines() if "the gateway answers at" in line]
    return found[0]


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as made:
        yield made


def test_requests_and_answers_pass_whole_and_as_they_come(nodes, client):
    _, base = nodes
    raw = f"{base}/site/raw"
    seen = eval(client.post(f"{raw}/facts?a=1", headers={"Potluck-Key": "k", "X-Own": "1"}, content=b"body").text)
    assert (seen["method"], seen["query"]) == ("POST", "a=1")
    assert (seen["root"], seen["path"]) == ("/site/raw", "/site/raw/facts")
    assert seen["headers"]["x-own"] == "1"
    assert "potluck-key" not in seen["headers"]
    with client.stream("GET", f"{raw}/numbers") as response:
        assert list(response.iter_text()) == [f"data: {number}\n\n" for number in range(3)]
    assert len(client.get(f"{raw}/large").content) == 50_000_000
    assert client.post(f"{raw}/upload", content=bytes(30_000_000)).text == "30000000"
    assert client.get(f"{raw}/raises").status_code == 500


def test_websockets_pass(nodes):
    _, base = nodes
    converse(f"{base}/site/raw", ("one", "x" * 900_000), 100)


def test_a_client_that_leaves_ends_its_request(nodes, client):
    _, base = nodes
    raw = f"{base}/site/raw"
    with client.stream("GET", f"{raw}/wait") as response:
        assert next(response.iter_bytes()) == b"begun"
    wait_until(
        lambda: eval(client.get(f"{raw}/facts").text)["left"] == "told and cancelled", "the application being told"
    )


def test_the_owner_s_node_knows_the_tokens(nodes, client):
    mesh, base = nodes
    url = f"{base}/site/private"
    assert client.get(url).status_code == 401
    made = json.loads(run_cli(mesh.nodes[0], "token", "create", "--json").stdout)
    good = {"Potluck-Key": made["key"], "Potluck-Secret": made["secret"]}
    assert client.get(url, headers=good).status_code == 200
    assert client.get(url, headers={**good, "Potluck-Secret": "guess"}).status_code == 401


def test_what_is_not_to_be_had_is_said(nodes, client):
    _, base = nodes
    assert client.get(f"{base}/site/nothing").status_code == 404
    assert client.get(f"{base}/elsewhere/raw").status_code == 404
    refused = client.get(f"{base}/{UNNAMED}/raw")
    assert refused.status_code == 403
    assert "gateways" in refused.text
    gone = client.get(f"{base}/{AWAY}/raw")
    assert gone.status_code == 503
    assert gone.headers["retry-after"]
