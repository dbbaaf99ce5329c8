"""A client for OCI registries: what the distribution spec 1.1 asks for to pull and push, over httpx.

Everything is verified against its digest and size; downloads are streamed to disk and go on where they broke off.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from potluck_images.errors import ImageError
from potluck_images.oci_words import (
    DOCUMENT_BYTES_MAX,
    INDEXES,
    MANIFEST,
    MANIFESTS,
    Descriptor,
    Reference,
    bad,
    check_digest,
    is_loopback,
)
from potluck_images.packfile import clearer

# A registry that is silent for this long is down; large blobs come at whatever speed they come.
TIMEOUTS = httpx.Timeout(30.0, connect=10.0)
REDIRECTS_MAX = 5
# How often a download may break off and go on before it is an error.
TRIES_MAX = 5
# A single layer: the largest of CUDA images have some 10 GB.
BLOB_BYTES_MAX = 64 << 30
_ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
# An error page is quoted in an error message, not read to its end.
_ERROR_BYTES_MAX = 64 << 10

Progress = Callable[[str], None]


class Registry:
    """One repository of one registry. Raises `ImageError` for whatever the other side does wrong."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._local = is_loopback(httpx.URL(reference.base).host)
        self._http = httpx.Client(
            follow_redirects=True,
            max_redirects=REDIRECTS_MAX,
            timeout=TIMEOUTS,
            trust_env=not self._local,
            event_hooks={"request": [self._check_url]},
        )
        self._authorization = ""

    def close(self) -> None:
        self._http.close()

    # Pulling

    def manifest(self, target: str, size: int = DOCUMENT_BYTES_MAX) -> tuple[str, bytes]:
        """(media type, bytes) of a manifest or index by tag or digest; a digest is verified."""
        kind, data = self._small(f"manifests/{target}", size, {"Accept": _ACCEPT})
        if target.startswith("sha256:"):
            _check(data, target)
        return kind, data

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob: an image's config."""
        check_digest(descriptor.digest)
        _, data = self._small(f"blobs/{descriptor.digest}", descriptor.size, {})
        _check(data, descriptor.digest)
        return data

    def _small(self, path: str, size: int, headers: dict[str, str]) -> tuple[str, bytes]:
        try:
            with self._request("GET", path, headers=headers) as response:
                kind = response.headers.get("content-type", "").partition(";")[0].strip()
                return kind, _read(response, min(size, DOCUMENT_BYTES_MAX))
        except httpx.RequestError as error:
            raise self._unreachable(error) from None

    def blob(self, descriptor: Descriptor, path: Path, progress: Progress) -> None:
        """Stream a blob to `path`, verified. Goes on where the connection broke, some times."""
        check_digest(descriptor.digest)
        if not 0 <= descriptor.size <= BLOB_BYTES_MAX:
            raise bad(f"a layer of {descriptor.size} bytes is over the limit of {BLOB_BYTES_MAX}")
        try:
            with open(path, "wb") as out:
                download = _Download(descriptor, out, progress)
                self._download(download)
        except OSError as error:
            raise clearer(error) from None
        download.check()

    def _download(self, download: _Download) -> None:
        for left in reversed(range(TRIES_MAX)):
            headers = {"Range": f"bytes={download.done}-"} if download.done else {}
            # Compressed on the way, offsets would count something else.
            headers["Accept-Encoding"] = "identity"
            try:
                with self._request("GET", f"blobs/{download.digest}", headers=headers) as response:
                    if response.status_code != httpx.codes.PARTIAL_CONTENT:
                        download.restart()
                    # As it arrives: what waits for more to come would be lost when it breaks off.
                    for piece in response.iter_raw():
                        download.take(piece)
                return
            except httpx.RequestError as error:  # it broke off
                if not left:
                    raise self._unreachable(error) from None

    # Pushing

    def has_blob(self, digest: str) -> bool:
        with self._request("HEAD", f"blobs/{digest}", allowed=(httpx.codes.NOT_FOUND,)) as response:
            return response.status_code == httpx.codes.OK

    def put_blob(self, digest: str, path: Path) -> None:
        """Upload in one request, unless the registry has it."""
        if self.has_blob(digest):
            return
        with self._request("POST", "blobs/uploads/") as response:
            place = urljoin(str(response.url), response.headers.get("location", ""))
        url = httpx.URL(place).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream"}
        with open(path, "rb") as file, self._request("PUT", url, headers=headers, content=file):
            pass

    def put_manifest(self, data: bytes) -> None:
        path = f"manifests/{self._reference.target}"
        with self._request("PUT", path, headers={"Content-Type": MANIFEST}, content=data):
            pass

    # Asking

    @contextmanager
    def _request(
        self, method: str, path: str | httpx.URL, allowed: tuple[int, ...] = (), **options: Any
    ) -> Iterator[httpx.Response]:
        """The response, unread; asks for a token when the registry wants one."""
        url = path if isinstance(path, httpx.URL) else self._url(path)
        for attempt in range(2):
            request = self._http.build_request(method, url, **options)
            if self._authorization and request.url.host == httpx.URL(self._reference.base).host:
                request.headers["Authorization"] = self._authorization
            try:
                response = self._http.send(request, stream=True)
            except httpx.TooManyRedirects:
                raise self._refused("it redirects in circles") from None
            except httpx.RequestError as error:
                raise self._unreachable(error) from None
            with _closing(response):
                if response.status_code == httpx.codes.UNAUTHORIZED and attempt == 0:
                    self._log_in(response.headers.get("www-authenticate", ""))
                    continue
                if response.is_error and response.status_code not in allowed:
                    raise self._refused(_reason(response))
                yield response
            return

    def _url(self, path: str) -> str:
        return f"{self._reference.base}/v2/{self._reference.repository}/{path}"

    def _check_url(self, request: httpx.Request) -> None:
        """Nothing unencrypted leaves this machine, and no registry elsewhere sends us to a service on it."""
        if request.url.scheme != "https" and not (self._local and is_loopback(request.url.host)):
            raise self._refused(f"it leads to {request.url.copy_with(query=None)}, without encryption")

    def _log_in(self, challenge: str) -> None:
        """Docker's token protocol: anonymous, or with what `docker login` left in its config."""
        scheme, _, rest = challenge.partition(" ")
        secret = _credentials(self._reference.registry)
        if scheme.lower() == "basic" and secret:
            self._authorization = f"Basic {secret}"
            return
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or "realm" not in fields:
            raise self._refused("it asks for a login, and there is none in Docker's config.json")
        query = {name: fields[name] for name in ("service", "scope") if name in fields}
        headers = {"Authorization": f"Basic {secret}"} if secret else {}
        try:
            with self._http.stream("GET", fields["realm"], params=query, headers=headers) as response:
                answer = json.loads(_read(response, DOCUMENT_BYTES_MAX)) if response.is_success else {}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._refused(f"its token service fails: {error}") from None
        token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii():
            raise self._refused("its token service gives no token for this image")
        self._authorization = f"Bearer {token}"

    def _refused(self, why: str) -> ImageError:
        return ImageError(
            f"{self._reference} cannot be had from its registry.",
            why=why,
            fix="Check the name and tag, and log in with `docker login` if it is private.",
        )

    def _unreachable(self, error: Exception) -> ImageError:
        return ImageError(
            f"The registry {self._reference.registry} cannot be reached.",
            why=str(error) or type(error).__name__,
            fix="Check the name and the network, and try again.",
        )


class _Download:
    def __init__(self, descriptor: Descriptor, out: Any, progress: Progress) -> None:
        self.digest, self._size = descriptor.digest, descriptor.size
        self._out, self._progress = out, progress
        self.restart()

    def restart(self) -> None:
        self.done = 0
        self._hasher = hashlib.sha256()
        self._out.seek(0)
        self._out.truncate()

    def take(self, piece: bytes) -> None:
        self.done += len(piece)
        if self.done > self._size:
            raise bad(f"the blob {self.digest} is longer than the {self._size} bytes it should have")
        self._hasher.update(piece)
        self._out.write(piece)
        if (self.done - len(piece)) >> 20 != self.done >> 20:
            self._progress(f"{self.digest[7:19]} {self.done >> 20} of {self._size >> 20} MiB")

    def check(self) -> None:
        if self.done != self._size or f"sha256:{self._hasher.hexdigest()}" != self.digest:
            raise bad(f"the blob {self.digest} came with other bytes than its digest says")


@contextmanager
def _closing(response: httpx.Response) -> Iterator[None]:
    try:
        yield
    finally:
        response.close()


def _read(response: httpx.Response, bytes_max: int) -> bytes:
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > bytes_max:
            raise bad(f"a document is over the limit of {bytes_max} bytes")
    return bytes(data)


def _check(data: bytes, digest: str) -> None:
    if hashlib.sha256(data).hexdigest() != check_digest(digest):
        raise bad(f"{digest} came with other bytes than its digest says")


def _reason(response: httpx.Response) -> str:
    """The registry's own words, when it has any."""
    text = ""
    try:
        data = next(response.iter_bytes(_ERROR_BYTES_MAX), b"")
        errors = json.loads(data)["errors"]
        text = "; ".join(f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors)[:500]
    except (httpx.HTTPError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return f"it answers {response.status_code} {response.reason_phrase}{': ' if text else ''}{text}"


def _credentials(registry: str) -> str:
    """User and password in base64, as Docker's config.json has them; "" without."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        known = json.loads((folder / "config.json").read_text())["auths"]
        name = "https://index.docker.io/v1/" if registry == "docker.io" else registry
        secret = known[name]["auth"]
        base64.b64decode(secret, validate=True)
    except (OSError, ValueError, KeyError, TypeError, binascii.Error):
        return ""
    return str(secret)
