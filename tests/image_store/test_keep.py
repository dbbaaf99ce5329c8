"""Which images go when room is needed, and that none goes which is used, also when everything is killed meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.image_store.crash import at_every_step
from tests.image_store.helpers import image_of, listing

from potluck_images import keep_report
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageError, NotFoundError
from potluck_images.keep import Shelf
from potluck_images.keep_reach import is_whole
from potluck_images.materialise import materialise, prune


def data(number: int, size: int = 100_000) -> bytes:
    return random.Random(number).randbytes(size)


def shelf_of(folder: Path, images: int = 0) -> tuple[Shelf, list[str]]:
    """Images that share one layer, the first the one not used for the longest time."""
    store = DiskStore(folder / "store")
    shelf = Shelf(folder, store)
    made = []
    for number in range(images):
        image = image_of(store, {"shared": data(0)}, {"own": data(number + 1)})
        shelf.note(image, f"image-{number}")
        os.utime(folder / "images" / image, (number, number))
        made.append(image)
    return shelf, made


@pytest.fixture
def shelf(tmp_path):
    shelf, images = shelf_of(tmp_path, 5)
    yield shelf, images
    shelf.store.close()


def test_the_longest_unused_go_first(shelf):
    shelf, images = shelf
    pruned = shelf.make_room(420_000)
    assert pruned.removed == tuple(images[:3])
    assert shelf.store.disk_bytes() <= 420_000
    assert pruned.bytes_won > 250_000
    assert [note.image for note in shelf.notes()] == [images[4], images[3]]
    assert all(is_whole(shelf.store, image) for image in images[3:])
    assert not any(is_whole(shelf.store, image) for image in images[:3])
    assert shelf.store.verify() == []


def test_what_is_pinned_stays_whoever_asks_and_counts_once(shelf):
    shelf, images = shelf
    one = shelf.pinned_bytes(images[0])
    for _ in range(2):
        shelf.pin(images[0], "owner")
    shelf.pin(images[1], "snapshot-until-ever")
    both = shelf.pinned_bytes(images[0])
    # They share a layer.
    assert 200_000 < one < both - 100_000 < one + 10_000
    pruned = shelf.make_room(0)
    assert set(pruned.removed) == set(images[2:])
    assert shelf.remove(images[:1]).in_use == (images[0],)
    shelf.unpin(images[0], "owner")
    assert shelf.remove(images[:2]).removed == (images[0],)
    assert is_whole(shelf.store, images[1])


def test_being_used_makes_it_young(shelf):
    shelf, images = shelf
    shelf.note(images[0])
    assert images[0] not in shelf.make_room(420_000).removed
    assert shelf.notes()[0].label == "image-0"


def test_unreached_chunks_go_before_any_image(shelf):
    shelf, images = shelf
    full = shelf.store.disk_bytes()
    for number in range(10):
        shelf.store.add(data(100 + number))
    assert shelf.make_room(full + 100_000).removed == ()
    assert all(is_whole(shelf.store, image) for image in images)
    assert shelf.store.disk_bytes() < full + 100_000


def test_what_is_held_stays_and_the_next_goes(shelf):
    shelf, images = shelf
    holds = [shelf.hold(images[0]), shelf.hold(images[0])]
    holds[0].release()
    assert shelf.make_room(420_000).removed == tuple(images[1:4])
    assert is_whole(shelf.store, images[0])
    assert shelf.remove([images[0]]).in_use == (images[0],)
    holds[1].release()
    pruned = shelf.remove([images[0]])
    assert pruned.removed == (images[0],)
    assert 100_000 < pruned.bytes_won < 102_000
    assert is_whole(shelf.store, images[4])


_HOLDER = """
import sys
from pathlib import Path
from potluck_images.disk import DiskStore
from potluck_images.keep import Shelf
folder = Path(sys.argv[1])
shelf = Shelf(folder, DiskStore(folder / "store"))
writing = shelf.writing()
kept = shelf.hold(sys.argv[2]) if sys.argv[2] != "writing" else writing.__enter__()
print("held", flush=True)
sys.stdin.read()
"""


def other_process(folder: Path, what: str) -> subprocess.Popen:
    command = [sys.executable, "-c", _HOLDER, str(folder), what]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_may_hold_an_image_and_lets_go_when_it_is_killed(shelf, tmp_path):
    shelf, images = shelf
    other = other_process(tmp_path, images[0])
    assert keep_report.images(shelf)[-1].held
    assert shelf.remove(images[:1]).in_use == (images[0],)
    other.kill()
    other.communicate()
    assert shelf.remove(images[:1]).removed == (images[0],)


def test_nothing_is_removed_while_another_process_builds(shelf, tmp_path):
    """Its chunks are reached by no image yet."""
    shelf, _ = shelf
    fresh = shelf.store.add(b"of a build that is under way")
    other = other_process(tmp_path, "writing")
    with pytest.raises(ImageError, match="built or pulled"):
        shelf.make_room(0, timeout_s=0.1)
    assert shelf.store.has(fresh)
    assert len(shelf.notes()) == 5
    other.kill()
    other.communicate()
    assert len(shelf.make_room(0).removed) == 5
    assert shelf.store.sizes() == {}


def test_locks_of_what_was_never_here_are_cleared(shelf, tmp_path):
    shelf, images = shelf
    strange = ["ab" * 32, "cd" * 32]
    held, free = [shelf.hold(each) for each in strange]
    free.release()
    shelf.remove([])
    names = {path.name for path in (tmp_path / "holds").iterdir()}
    assert strange[0] in names
    assert strange[1] not in names
    held.release()
    assert all(is_whole(shelf.store, image) for image in images)


def test_images_are_found_by_label_and_first_digits(shelf):
    shelf, images = shelf
    assert shelf.find("image-3") == images[3]
    assert shelf.find(images[2][:10]) == images[2]
    with pytest.raises(NotFoundError, match="image ls"):
        shelf.find(images[2][:3])
    with pytest.raises(NotFoundError, match="nope"):
        shelf.find("nope")


def test_verify_names_what_is_damaged(shelf, tmp_path):
    shelf, images = shelf
    (pack,) = (tmp_path / "store" / "packs").iterdir()
    with pack.open("r+b") as file:
        file.seek(-50_000, os.SEEK_END)
        file.write(bytes(100))
    assert len(shelf.store.verify()) == 1
    assert shelf.damaged() == [images[4]]
    assert [facts.image for facts in keep_report.images(shelf) if facts.damaged] == [images[4]]
    shelf.store.add(data(5))
    image_of(shelf.store, {"shared": data(0)}, {"own": data(5)})
    assert shelf.damaged() == []


def test_reports(shelf, tmp_path):
    shelf, images = shelf
    facts = keep_report.images(shelf)
    assert [each.label for each in facts] == [f"image-{number}" for number in (4, 3, 2, 1, 0)]
    assert facts[0].size == 200_000
    assert 100_000 < facts[0].own < 102_000
    details = keep_report.details(shelf, images[0])
    assert [(layer.files, layer.size) for layer in details.layers] == [(1, 100_000)] * 2
    (change,) = keep_report.diff(shelf, images[0], images[1])
    assert (change.kind, change.path, change.old_size) == ("~", "/own", 100_000)
    assert keep_report.diff(shelf, images[0], images[0]) == ()
    whole = keep_report.store_facts(shelf, tmp_path / "trees", 1 << 30)
    assert whole.packs == whole.live == shelf.store.disk_bytes()


def test_killed_at_every_step_of_an_eviction(tmp_path):
    """Images that are still on the shelf are whole, the held one above all; the room is there at the next try."""

    def make(folder):
        shelf, _ = shelf_of(folder, 4)
        shelf.store.close()

    def work(folder):
        shelf, _ = shelf_of(folder)
        kept = shelf.hold(shelf.find("image-0"))
        shelf.make_room(250_000)
        kept.release()
        shelf.store.close()

    def check(folder):
        shelf, _ = shelf_of(folder)
        assert shelf.store.verify() == []
        assert shelf.damaged() == []
        assert shelf.find("image-0")
        kept = shelf.hold(shelf.find("image-0"))
        shelf.make_room(250_000)
        assert [note.label for note in shelf.notes()] == ["image-0"]
        assert shelf.store.disk_bytes() < 250_000
        kept.release()
        shelf.store.close()

    assert at_every_step(make, work, check, tmp_path) > 40


def test_killed_at_every_step_of_making_and_laying_out_an_image(tmp_path):
    """What is on the shelf is whole, a root that can be had is complete, and doing it again works."""
    files = {f"pkg/{number}": data(number, 200) for number in range(6)} | {"big": data(9, 70_000), "link": "big"}

    def work(folder):
        shelf, _ = shelf_of(folder)
        with shelf.writing():
            shelf.note(image_of(shelf.store, files), "made")
        materialise(shelf.store, shelf.find("made"), folder / "trees").release()
        prune(folder / "trees", shelf.store)
        shelf.store.close()

    def check(folder):
        shelf, _ = shelf_of(folder)
        assert shelf.store.verify() == []
        assert shelf.damaged() == []
        image = image_of(shelf.store, files)
        shelf.note(image)
        with materialise(shelf.store, image, folder / "trees") as root:
            assert {path: content for path, content in listing(root).items() if not path.endswith("/")} == files
        prune(folder / "trees", shelf.store)
        left = [path for path in (folder / "trees").rglob("*") if path.is_file() and path.name != "lock"]
        assert left == []
        shelf.store.close()

    assert at_every_step(lambda folder: None, work, check, tmp_path) > 40
