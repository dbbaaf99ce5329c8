"""The registry client against registries that break off, lie, redirect, and ask for tokens: a server on loopback."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.image_store.registry import member, sha256, tar_of

from potluck_images import oci, oci_registry
from potluck_images.errors import ImageError
from potluck_images.memory import MemoryStore
from potluck_images.oci_words import own_architecture

TAR = tar_of(member("a", b"1" * 300_000))


def quiet(text: str) -> None:
    pass


class Fake:
    """Serves `documents` by path; `answers` may put a function (handler → None) in the place of one."""

    def __init__(self) -> None:
        config = {"architecture": own_architecture(), "os": "linux", "rootfs": {"type": "layers"}}
        config["rootfs"]["diff_ids"] = [sha256(TAR)]
        packed = json.dumps(config).encode()
        kind = "application/vnd.oci.image.manifest.v1+json"
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": "application/json", "digest": sha256(packed), "size": len(packed)},
            "layers": [{"mediaType": "application/tar", "digest": sha256(TAR), "size": len(TAR)}],
        }
        self.layer, self.kind = f"/v2/x/blobs/{sha256(TAR)}", kind
        self.documents = {f"/v2/x/blobs/{sha256(packed)}": packed, self.layer: TAR}
        self.answers: dict[str, object] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                fake.requests.append((self.path, dict(self.headers)))
                if path in fake.answers:
                    fake.answers[path](self)
                elif path == "/v2/x/manifests/latest":
                    send(self, 200, json.dumps(fake.manifest).encode(), {"Content-Type": fake.kind})
                elif path in fake.documents:
                    send(self, 200, fake.documents[path])
                else:
                    send(self, 404, b'{"errors": [{"code": "NAME_UNKNOWN", "message": "no such name"}]}')

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def send(handler, status: int, data: bytes, headers=None, length: int | None = None) -> None:
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)
    if length is not None:
        handler.close_connection = True


@pytest.fixture
def fake():
    made = Fake()
    yield made
    made.server.shutdown()
    made.server.server_close()


def pull(fake, folder):
    return oci.pull(f"{fake.address}/x", MemoryStore(), folder, quiet)


def refused(fake, folder) -> str:
    with pytest.raises(ImageError) as caught:
        pull(fake, folder)
    assert caught.value.fix
    assert list(folder.iterdir()) == []
    return caught.value.why


def test_a_broken_download_goes_on_where_it_broke(fake, tmp_path):
    def torn(handler):
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        send(handler, 206 if start else 200, TAR[start : start + 100_000], length=len(TAR) - start)

    fake.answers[fake.layer] = torn
    pull(fake, tmp_path)
    ranges = [headers.get("Range") for path, headers in fake.requests if path == fake.layer]
    assert ranges[0] is None
    assert ranges[1] == "bytes=100000-"
    assert len(ranges) == 4


def test_a_server_that_cannot_go_on_starts_again(fake, tmp_path):
    tries = []

    def torn_once(handler):
        tries.append(1)
        send(handler, 200, TAR[:1000] if len(tries) == 1 else TAR, length=len(TAR))

    fake.answers[fake.layer] = torn_once
    pull(fake, tmp_path)
    assert len(tries) == 2


def test_a_download_that_always_breaks_is_given_up(fake, tmp_path):
    fake.answers[fake.layer] = lambda handler: send(handler, 200, TAR[:1000], length=len(TAR))
    with pytest.raises(ImageError, match="cannot be reached"):
        pull(fake, tmp_path)
    assert sum(path == fake.layer for path, _ in fake.requests) == oci_registry.TRIES_MAX


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (TAR[:-1] + b"x", "other bytes"),
        (TAR + b"more", "longer than"),
        (TAR[:1000], "other bytes"),
    ],
)
def test_wrong_bytes_are_refused(data, why, fake, tmp_path):
    fake.documents[fake.layer] = data
    assert why in refused(fake, tmp_path)


def test_a_wrong_config_is_refused(fake, tmp_path):
    path = f"/v2/x/blobs/{fake.manifest['config']['digest']}"
    fake.documents[path] = fake.documents[path].replace(b"linux", b"linuz")
    assert "other bytes" in refused(fake, tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"config": None}, "does not parse"),
        ({"layers": []}, "different numbers"),
        ({"layers": [{"mediaType": "x", "digest": "md5:1", "size": 1}]}, "no sha256"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:../../../x", "size": 1}]}, "no sha256"),
        ({"layers": [{"mediaType": "x", "digest": sha256(TAR), "size": 1 << 50}]}, "over the limit"),
        ({"layers": [{"mediaType": "x", "digest": sha256(TAR), "size": 1}] * 300}, "300 layers"),
    ],
)
def test_bad_manifests(change, why, fake, tmp_path):
    fake.manifest |= change
    assert why in refused(fake, tmp_path)


def test_unknown_kinds_and_endless_documents(fake, tmp_path):
    fake.kind = "text/html"
    assert "'text/html'" in refused(fake, tmp_path)
    fake.kind, fake.manifest["padding"] = fake.manifest["mediaType"], "x" * (5 << 20)
    assert "over the limit" in refused(fake, tmp_path)


def test_redirects_stay_encrypted_and_end(fake, tmp_path):
    fake.answers[fake.layer] = lambda handler: send(handler, 307, b"", {"Location": "/moved"})
    fake.documents["/moved"] = TAR
    pull(fake, tmp_path)
    fake.answers["/moved"] = lambda handler: send(handler, 307, b"", {"Location": "/moved"})
    assert "in circles" in refused(fake, tmp_path)
    fake.answers["/moved"] = lambda handler: send(handler, 307, b"", {"Location": "http://registry.example/blob"})
    assert "without encryption" in refused(fake, tmp_path)


def test_tokens(fake, tmp_path, monkeypatch):
    def locked(handler):
        if handler.headers.get("Authorization") == "Bearer let-me-in":
            send(handler, 200, json.dumps(fake.manifest).encode(), {"Content-Type": fake.kind})
        else:
            realm = f'Bearer realm="http://{fake.address}/token",service="s",scope="repository:x:pull"'
            send(handler, 401, b"{}", {"WWW-Authenticate": realm})

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    fake.answers["/v2/x/manifests/latest"] = locked
    fake.answers["/token"] = lambda handler: send(handler, 200, b'{"token": "let-me-in"}')
    work = tmp_path / "work"
    work.mkdir()
    pull(fake, work)
    (asked,) = [(path, headers) for path, headers in fake.requests if path.startswith("/token")]
    assert asked[0] == "/token?service=s&scope=repository%3Ax%3Apull"
    assert "Authorization" not in asked[1]
    (tmp_path / "docker").mkdir()
    secret = base64.b64encode(b"user:password").decode()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {fake.address: {"auth": secret}}}))
    pull(fake, work)
    assert fake.requests[-4][1]["Authorization"] == f"Basic {secret}"
    fake.answers["/token"] = lambda handler: send(handler, 403, b"")
    assert "gives no token" in refused(fake, work)
    fake.answers["/token"] = lambda handler: send(handler, 200, b"[]")
    assert "gives no token" in refused(fake, work)


def test_the_registrys_own_words_are_shown(fake, tmp_path):
    fake.manifest = fake.documents = {}
    fake.answers["/v2/x/manifests/latest"] = lambda handler: send(handler, 404, b'{"errors": [{"code": "GONE"}]}')
    assert "404 Not Found: GONE" in refused(fake, tmp_path)
    fake.answers["/v2/x/manifests/latest"] = lambda handler: send(handler, 500, b"\xff" * 100_000)
    assert "500 Internal Server Error" in refused(fake, tmp_path)


def test_nobody_there(tmp_path):
    with pytest.raises(ImageError, match=r"127\.0\.0\.1:1 cannot be reached"):
        oci.pull("127.0.0.1:1/x", MemoryStore(), tmp_path, quiet)
