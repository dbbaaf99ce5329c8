"""Pulling from, pushing to and exporting for the OCI world, against a real registry and tools of others."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import httpx
import pytest
import zstandard
from tests.image_store.helpers import image_of, listing, tree_of
from tests.image_store.registry import (
    hardlink,
    member,
    needs_registry,
    needs_skopeo,
    put_image,
    put_manifest,
    running_registry,
    sha256,
    symlink,
    tar_of,
)

from potluck_images import oci
from potluck_images.config import ImageConfig
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageError
from potluck_images.image import get_config, put_config
from potluck_images.materialise import materialise
from potluck_images.oci_words import own_architecture
from potluck_images.pack import pack

pytestmark = needs_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def store(tmp_path):
    store = DiskStore(tmp_path / "store")
    yield store
    store.close()


def quiet(text: str) -> None:
    pass


def pulled(reference: str, store: DiskStore, folder: Path) -> dict[str, bytes | str]:
    """What lies in the image, without the standard folders."""
    image = oci.pull_image(reference, store, folder / "work", quiet)
    assert list((folder / "work").iterdir()) == []
    with materialise(store, image, folder / "trees") as root:
        found = listing(root)
    standard = ("proc/", "dev/", "tmp/", "run/", "sys/", "etc/", "opt/", "app/")
    return {path: content for path, content in found.items() if path not in standard}


def test_layers_whiteouts_and_links(registry, store, tmp_path):
    bottom = tar_of(
        member("./", None),
        member("usr/", None),
        member("usr/lib/", None),
        symlink("lib", "usr/lib"),
        member("usr/lib/kept", b"kept"),
        member("usr/lib/gone", b"gone"),
        member("usr/lib/changed", b"old"),
        member("usr/lib/bin", b"#!", mode=0o4755),
        member("cache/", None),
        member("cache/a", b"a"),
        member("cache/deep/b", b"b"),
        member("dir/x", b"x"),
        hardlink("usr/hard", "usr/lib/kept"),
    )
    top = tar_of(
        member("usr/lib/.wh.gone"),
        member("lib/changed", b"new"),
        member("cache/own", b"own"),
        member("cache/.wh..wh..opq"),
        member("cache/own2", b"own2"),
        member("dir", b"now a file"),
        hardlink("usr/hard2", "usr/lib/kept"),
    )
    run = {"Env": ["PATH=/usr/bin", "A=b=c"], "WorkingDir": "/srv/", "Entrypoint": ["/bin/x"], "Cmd": ["y"]}
    reference = put_image(registry, "layers", bottom, top, run=run)
    assert pulled(reference, store, tmp_path) == {
        "usr/": b"",
        "usr/lib/": b"",
        "lib": "usr/lib",
        "usr/lib/kept": b"kept",
        "usr/lib/changed": b"new",
        "usr/lib/bin": b"#!",
        "usr/hard": b"kept",
        "usr/hard2": b"kept",
        "cache/": b"",
        "cache/own": b"own",
        "cache/own2": b"own2",
        "dir": b"now a file",
    }
    config = get_config(store, oci.pull_image(reference, store, tmp_path / "work", quiet))
    assert config.env == (("A", "b=c"), ("PATH", "/usr/bin"))
    assert (config.workdir, config.entrypoint, config.cmd) == ("/srv", ("/bin/x",), ("y",))


def test_special_mode_bits_end_here(registry, store, tmp_path):
    reference = put_image(registry, "setuid", tar_of(member("su", b"#!", mode=0o6755), member("sticky", mode=0o1644)))
    image = oci.pull_image(reference, store, tmp_path, quiet)
    with materialise(store, image, tmp_path / "trees") as root:
        assert [(root / name).stat().st_mode & 0o7777 for name in ("su", "sticky")] == [0o555, 0o444]


@pytest.mark.parametrize("pack", [bytes, zstandard.ZstdCompressor().compress], ids=["plain", "zstd"])
def test_other_compressions(pack, registry, store, tmp_path):
    tar = tar_of(member("a", b"x" * 500_000), member("b", b""))
    reference = put_image(registry, f"packed-{len(pack(tar))}", tar, pack=pack)
    assert pulled(reference, store, tmp_path) == {"a": b"x" * 500_000, "b": b""}


def test_the_manifest_for_this_machine_is_chosen(registry, store, tmp_path):
    reference = put_image(registry, "many", tar_of(member("ours", b"yes")))
    manifest = json.loads(_get(registry, "many", "latest"))
    ours = json.dumps(manifest).encode()
    entry = {"mediaType": manifest["mediaType"], "digest": sha256(ours), "size": len(ours)}
    mine = {**entry, "platform": {"os": "linux", "architecture": own_architecture()}}
    other = {**entry, "platform": {"os": "linux", "architecture": "s390x"}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    put_manifest(registry, "many", "index", {**index, "manifests": [other, mine]})
    assert pulled(reference.replace("latest", "index"), store, tmp_path) == {"ours": b"yes"}
    put_manifest(registry, "many", "foreign", {**index, "manifests": [other]})
    with pytest.raises(ImageError, match="linux/s390x"):
        oci.pull(reference.replace("latest", "foreign"), store, tmp_path, quiet)


def _get(registry: str, name: str, tag: str) -> bytes:
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    return httpx.get(f"http://{registry}/v2/{name}/manifests/{tag}", headers=accept, trust_env=False).content


def test_by_digest_and_what_is_not_there(registry, store, tmp_path):
    put_image(registry, "named", tar_of(member("a", b"1")))
    digest = sha256(_get(registry, "named", "latest"))
    assert pulled(f"{registry}/named@{digest}", store, tmp_path) == {"a": b"1"}
    with pytest.raises(ImageError, match="MANIFEST_UNKNOWN") as caught:
        oci.pull(f"{registry}/named:nope", store, tmp_path, quiet)
    assert "docker login" in caught.value.fix


def test_other_machines_images_are_refused(registry, store, tmp_path):
    reference = put_image(registry, "foreign", tar_of(member("a", b"1")), architecture="s390x")
    with pytest.raises(ImageError, match="s390x"):
        oci.pull(reference, store, tmp_path, quiet)


def test_the_same_image_has_the_same_id(registry, store, tmp_path):
    reference = put_image(registry, "same", tar_of(member("b", b"2"), member("a", b"1")))
    again = put_image(registry, "same2", tar_of(member("a", b"1")), tar_of(member("b", b"2", mtime=12345)))
    first, second = (oci.pull_image(each, store, tmp_path, quiet) for each in (reference, again))
    assert first == second


def sample(store: DiskStore) -> str:
    upper = tree_of({"keep/b": b"2", "big": bytes(range(256)) * 2000})
    upper.remove("gone")
    upper.remove("keep")
    lower = pack(tree_of({"gone": b"x", "keep/a": b"1", "link": "keep/a", "run/me": b"#!"}), store)
    config = ImageConfig(
        (lower, pack(upper, store)), env=(("A", "1"),), workdir="/keep", entrypoint=("/run/me",), cmd=("x",)
    )
    return put_config(store, config)


def test_pushed_and_pulled_again(registry, store, tmp_path):
    image = sample(store)
    digest = oci.push(image, f"{registry}/ours/sample:v1", store, tmp_path / "work", quiet)
    assert oci.push(image, f"{registry}/ours/sample:v2", store, tmp_path / "work", quiet) == digest
    with materialise(store, image, tmp_path / "trees") as root:
        expected = listing(root)
    other = DiskStore(tmp_path / "other")
    back = oci.pull_image(f"{registry}/ours/sample:v1", other, tmp_path / "work", quiet)
    with materialise(other, back, tmp_path / "other-trees") as root:
        assert listing(root) == expected
    config = get_config(other, back)
    assert (config.env, config.workdir) == ((("A", "1"),), "/keep")
    assert (config.entrypoint, config.cmd) == (("/run/me",), ("x",))
    other.close()


@needs_skopeo
def test_others_read_what_we_push_and_we_what_they_push(registry, store, tmp_path):
    image = sample(store)
    oci.push(image, f"{registry}/ours/skopeo:v1", store, tmp_path / "work", quiet)
    source, copy = f"docker://{registry}/ours/skopeo:v1", f"docker://{registry}/theirs/copy:v1"
    told = json.loads(_skopeo("inspect", "--tls-verify=false", source))
    assert (told["Architecture"], told["Env"]) == (own_architecture(), ["A=1"])
    # Docker's own format.
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    _skopeo("copy", "--format", "v2s2", *insecure, source, copy)
    theirs = pulled(f"{registry}/theirs/copy:v1", store, tmp_path)
    assert theirs == pulled(f"{registry}/ours/skopeo:v1", store, tmp_path)
    assert theirs["keep/b"] == b"2"


@needs_skopeo
def test_others_read_the_archive(store, tmp_path):
    image, file = sample(store), tmp_path / "image.tar"
    oci.export(image, file, store, tmp_path / "work", quiet)
    told = json.loads(_skopeo("inspect", f"oci-archive:{file}"))
    assert len(told["Layers"]) == 2
    _skopeo("copy", f"oci-archive:{file}", f"dir:{tmp_path / 'dir'}")
    with tarfile.open(file) as tar:
        assert "./oci-layout" in tar.getnames()
    first = hashlib.sha256(file.read_bytes()).digest()
    oci.export(image, file, store, tmp_path / "work", quiet)
    assert hashlib.sha256(file.read_bytes()).digest() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir", "image.tar", "store", "work"]


def _skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_a_failed_pull_stays_behind(registry, store, tmp_path):
    reference = put_image(registry, "evil", tar_of(member("a", b"1"), member("../b", b"2")))
    with pytest.raises(ImageError, match="plain path"):
        oci.pull(reference, store, tmp_path / "work", quiet)
    assert list((tmp_path / "work").iterdir()) == []


def test_progress_may_cancel(registry, store, tmp_path):
    reference = put_image(registry, "cancel", tar_of(member("a", b"1")))

    def cancel(text: str) -> None:
        if "unpacking" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        oci.pull(reference, store, tmp_path / "work", cancel)
    assert list((tmp_path / "work").iterdir()) == []


def test_images_share_chunks(registry, store, tmp_path):
    big = bytes(hashlib.sha256(b"%d" % n).digest()[0] for n in range(300_000))
    reference = put_image(registry, "shared", tar_of(member("lib/big", big), member("app", b"1")))
    image_of(store, {"other/place": big})
    before = store.disk_bytes()
    oci.pull(reference, store, tmp_path, quiet)
    assert store.disk_bytes() - before < 5_000
