"""A real registry on loopback, Debian's docker-registry, and OCI images made by hand to be put into it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from potluck_images.oci_words import own_architecture

BINARY = shutil.which("docker-registry")
needs_registry = pytest.mark.skipif(BINARY is None, reason="needs Debian's docker-registry")
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs Debian's skopeo")

_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error, accesslog: {{disabled: true}}}}
"""


@contextmanager
def running_registry(folder: Path) -> Iterator[str]:
    """Its "host:port"."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "registry.yml"
    config.write_text(_CONFIG.format(folder=folder / "registry", port=port))
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL")}
    process = subprocess.Popen(
        [BINARY, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
    )
    try:
        _await(f"http://127.0.0.1:{port}/v2/")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _await(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the registry did not start"
        time.sleep(0.05)


def member(name: str, data: bytes | None = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry: a file, or a folder without data, or what `fields` make of it."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    if data is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    info.size = len(data or b"")
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data or b""


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put_image(registry: str, name: str, *tars: bytes, pack=gzip.compress, run=None, architecture=None) -> str:
    """Upload an image made of these layers, past any client; returns its reference."""
    layers = [pack(tar) for tar in tars]
    config = json.dumps(
        {
            "architecture": architecture or own_architecture(),
            "os": "linux",
            "config": run or {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        }
    ).encode()
    return put_raw(registry, name, config, layers)


def put_raw(registry: str, name: str, config: bytes, layers: list[bytes]) -> str:
    for blob in (config, *layers):
        put_blob(registry, name, blob)
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}manifest.v1+json",
        "config": {"mediaType": f"{kind}config.v1+json", "digest": sha256(config), "size": len(config)},
        "layers": [
            {"mediaType": f"{kind}layer.v1.tar+gzip", "digest": sha256(layer), "size": len(layer)} for layer in layers
        ],
    }
    put_manifest(registry, name, "latest", manifest)
    return f"{registry}/{name}:latest"


def put_blob(registry: str, name: str, data: bytes) -> None:
    with httpx.Client(trust_env=False) as http:
        place = http.post(f"http://{registry}/v2/{name}/blobs/uploads/").raise_for_status().headers["location"]
        url = httpx.URL(place).copy_merge_params({"digest": sha256(data)})
        http.put(url, content=data, headers={"Content-Type": "application/octet-stream"}).raise_for_status()


def put_manifest(registry: str, name: str, tag: str, manifest: dict) -> bytes:
    data = json.dumps(manifest).encode()
    url = f"http://{registry}/v2/{name}/manifests/{tag}"
    httpx.put(url, content=data, headers={"Content-Type": manifest["mediaType"]}, trust_env=False).raise_for_status()
    return data
