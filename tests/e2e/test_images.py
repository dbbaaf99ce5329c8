"""`potluck image …` against real nodes: everything a user sees, and that house is kept while images are in use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.e2e.mesh import Mesh, wait_until
from tests.image_store.registry import member, needs_registry, put_image, running_registry, tar_of

from potluck.cli.main import main
from potluck.errors import Error
from potluck.wire import control
from potluck_images.definition import ImageDefinition, Source


def potluck(*words: str, fails: bool = False) -> str:
    done = CliRunner().invoke(main, ["image", *words])
    assert (done.exit_code != 0) == fails, done.output + repr(done.exception)
    return done.output


def build(node, folder: Path, **files: bytes) -> str:
    """An image of a few files, built by the node."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    steps = tuple((f"/app/{name}", str(folder / name)) for name in files)
    client = node.client()
    try:
        ask = lambda number: control.BuildImage(number, ImageDefinition((Source(steps),)))  # noqa: E731
        return client.ask(ask, control.ImageBuilt).image
    finally:
        client.close()


@pytest.fixture
def node(mesh, use_node):
    return use_node(mesh.caller("cas", "--store-gib", "0.1"))


def test_listing_and_comparing(node, tmp_path):
    assert "No images." in potluck("ls")
    old = build(node, tmp_path / "src", a=b"1", b=b"2" * 5000)
    new = build(node, tmp_path / "src", b=b"3" * 6000, c=b"4")
    shown = potluck("ls")
    assert old[:12] in shown
    assert new[:12] in shown
    assert "in packs" in shown
    told = json.loads(potluck("ls", "--json"))
    assert [each["image"] for each in told["images"]] == [new, old]
    assert told["images"][1]["size"] == 5001
    assert old in potluck("info", old[:8])
    assert json.loads(potluck("info", old, "--json"))["layers"][0]["files"] == 2
    assert "4.9 KiB" in potluck("history", old)
    changes = potluck("diff", old[:12], new[:12])
    assert "- /app/a  1 B" in changes
    assert "~ /app/b  4.9 KiB → 5.9 KiB" in changes
    assert "+ /app/c  1 B" in changes
    assert len(json.loads(potluck("diff", old, new, "--json"))["changes"]) == 3
    assert "potluck image ls" in potluck("info", "nope", fails=True)


def test_pruning_and_verifying(node, tmp_path):
    first = build(node, tmp_path / "src", a=os.urandom(200_000))
    second = build(node, tmp_path / "src", b=os.urandom(200_000))
    assert "0 of them bad" in potluck("verify")
    assert "0 B won back" in potluck("prune")
    pruned = json.loads(potluck("prune", first[:12], "--json"))
    assert pruned["removed"] == [first]
    assert 200_000 < pruned["bytes_won"] < 202_000
    assert [each["image"] for each in json.loads(potluck("ls", "--json"))["images"]] == [second]
    (pack,) = (node.home / "store" / "packs").iterdir()
    with pack.open("r+b") as file:
        file.seek(100_000)
        file.write(bytes(100))
    assert "lack chunks" in potluck("verify", fails=True)
    assert "damaged" in potluck("ls")
    assert "--repair" in potluck("verify", "--repair", fails=True)
    assert json.loads(potluck("prune", "--all", "--json"))["removed"] == [second]
    assert json.loads(potluck("ls", "--json"))["store"]["packs"] == 0


def test_a_full_store_makes_room_by_itself(node, tmp_path):
    """Each image has a quarter of the cap; the oldest go, but for the pinned one, and no build fails."""
    pinned = [build(node, tmp_path / "src", data=os.urandom(25 << 20)) for _ in range(2)]
    for image in pinned:
        assert f"pinned {image[:12]}" in potluck("pin", image[:12])
    third = build(node, tmp_path / "src", data=os.urandom(28 << 20))
    assert "store_gib" in potluck("pin", third, fails=True).replace("\n", " ")
    assert "unpin" in potluck("rm", pinned[0], fails=True)
    assert "unpinned" in potluck("unpin", pinned[0])
    assert "not pinned" in potluck("unpin", pinned[0], fails=True)
    assert "removed" in potluck("rm", pinned[0])
    images = [build(node, tmp_path / "src", data=os.urandom(25 << 20)) for _ in range(7)]
    here = [each["image"] for each in json.loads(potluck("ls", "--json"))["images"]]
    assert images[-1] == here[0]
    assert here == [*images[::-1][: len(here) - 1], pinned[1]]
    assert 1 < len(here) < 5
    assert json.loads(potluck("ls", "--json"))["store"]["packs"] < 108 << 20


def test_damage_is_repaired_from_a_peer(tmp_path, use_node):
    mesh = Mesh(tmp_path)
    try:
        ann, bob = mesh.caller("ann"), mesh.provider("bob")
        image = build(ann, tmp_path / "src", data=os.urandom(300_000))
        wait_until(lambda: ann.status().peers, "finding each other")
        use_node(bob)
        wait_until(lambda: _pulled(image), "pulling from the builder")
        (pack,) = (bob.home / "store" / "packs").iterdir()
        with pack.open("r+b") as file:
            file.seek(100_000)
            file.write(bytes(100))
        shown = potluck("verify", "--repair")
        assert f"repaired {image[:12]}" in shown
        assert "0 of them bad" in potluck("verify")
    finally:
        mesh.stop()


def _pulled(image: str) -> bool:
    return CliRunner().invoke(main, ["image", "pull", image]).exit_code == 0


@needs_registry
def test_to_and_from_a_registry(node, tmp_path):
    with running_registry(tmp_path) as registry:
        reference = put_image(registry, "theirs", tar_of(member("hello", b"world")))
        image = potluck("pull", reference).strip()
        assert reference in potluck("ls").replace("\n", "") or reference in potluck("info", image)
        assert json.loads(potluck("info", reference, "--json"))["image"] == image
        assert "sha256:" in potluck("push", image[:12], f"{registry}/ours/copy:1")
        assert len(potluck("pull", f"{registry}/ours/copy:1").strip()) == 64
        assert "registry" in potluck("pull", f"{registry}/nothing:1", fails=True)
        file = tmp_path / "image.tar"
        assert str(file) in potluck("export", image, str(file)).replace("\n", "")
        assert file.stat().st_size > 1000
        assert "cannot be written" in potluck("export", image, str(tmp_path / "no" / "image.tar"), fails=True)


def test_what_a_client_asks_ends_with_it(node, tmp_path):
    """A client that leaves while its question is being answered costs the node nothing."""
    build(node, tmp_path / "src", data=os.urandom(1 << 20))
    client = node.client()
    client._session.ask(lambda number: control.VerifyImages(number))
    client._flush()
    client.close()
    with pytest.raises(Error, match="nope"):
        other = node.client()
        try:
            other.ask(lambda number: control.AskImage(number, "nope"), control.ImageAnswer)
        finally:
            other.close()
