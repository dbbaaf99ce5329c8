"""Secrets of build steps: there for the step, and nowhere after it."""

from __future__ import annotations

import sys

import pytest
from tests.image_store.test_commands import BASE, Place

from potluck_images.build import build
from potluck_images.definition import ImageDefinition, Run
from potluck_images.errors import ImageBuildError
from potluck_images.process import LINE_BYTES_MAX, run
from potluck_images.secrecy import Mask

VALUE = "hunter2-hunter2-hunter2"
USES = "import os, hashlib; print('it is', os.environ['TOKEN']); open('/made', 'w').write('made')"


class SecretPlace(Place):
    def build(self, code, value=VALUE, **options):
        self.said = []
        steps = (*BASE, Run((code,), secrets=("TOKEN",), **options))
        return build(
            ImageDefinition(steps), self.store, self.cache, lambda *words: self.said.append(words), self.workshop,
            {len(BASE): {"TOKEN": value, "OTHER": "not-named-not-given"}},
        )  # fmt: skip


@pytest.fixture
def place(tmp_path):
    made = SecretPlace(tmp_path)
    yield made
    made.store.close()


def everything(folder):
    """All bytes of all files, what is compressed also as it was."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def test_a_step_sees_its_secrets_and_nothing_keeps_them(place, tmp_path):
    image = place.build(USES)
    assert ("run", "it is ***") in place.said
    assert place.run(image, "/opt/python/bin/python3", "-c", "import os; print(os.environ.get('TOKEN'))") == "None"
    files = dict(everything(tmp_path))
    assert any(b"made" in data for path, data in files.items() if path.name == "made")
    assert not [path for path, data in files.items() if VALUE.encode() in data]
    chunks = [place.store.get(digest) for digest in place.store.digests()]
    assert chunks
    assert not [chunk for chunk in chunks if VALUE.encode() in chunk]


def test_names_count_for_the_cache_and_values_do_not(place):
    first = place.build(USES)
    assert place.build(USES, "another-value-another") == first
    assert ("run", "it is ***") not in place.said
    assert first == build(
        ImageDefinition((*BASE, Run((USES.replace("os.environ['TOKEN']", "1"),)))), place.store, place.cache,
        workshop=place.workshop,
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "open('/root-note', 'w').write('a' * 70000 + os.environ['TOKEN'])",
        "os.symlink(os.environ['TOKEN'], '/root-note')",
        "open('/root-note-' + os.environ['TOKEN'], 'w').write('x')",
    ],
)
def test_a_secret_that_a_step_leaves_fails_the_build(place, tmp_path, code):
    with pytest.raises(ImageBuildError, match=r"TOKEN into /root-note(-\*\*\*)?\.") as caught:
        place.build(f"import os; {code}")
    assert VALUE not in str(caught.value)
    assert not [path for path, data in everything(tmp_path) if VALUE.encode() in data]


def test_neither_a_failed_step_nor_one_that_takes_too_long_shows_it(place):
    with pytest.raises(ImageBuildError, match="status 3") as caught:
        place.build("import os, sys; print(os.environ['TOKEN']); sys.exit(3)")
    assert caught.value.why == "***"
    code = f"import time; print({VALUE!r}, flush=True); time.sleep(60)"
    with pytest.raises(ImageBuildError, match="stopped") as caught:
        run([sys.executable, "-c", code], print, 2, mask=Mask([VALUE]))
    assert caught.value.why == "***"


def test_a_secret_that_was_not_given_is_named(place):
    with pytest.raises(ImageBuildError, match="not given: TOKEN"):
        build(ImageDefinition((*BASE, Run(("1",), secrets=("TOKEN",)))), place.store, place.cache)


@pytest.mark.parametrize("before", [0, LINE_BYTES_MAX - len(VALUE) // 2, 2 * LINE_BYTES_MAX - 3])
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_secret_is_hidden_wherever_a_long_line_is_cut(before, end):
    said = []
    code = f"import sys; sys.stdout.write('x' * {before} + {VALUE!r} + {end!r})"
    run([sys.executable, "-c", code], said.append, 60, mask=Mask([VALUE]))
    text = "".join(said)
    assert text.replace("x", "") == "***"


def test_the_lines_of_a_value_are_hidden_and_short_values_are_not():
    mask = Mask(["-----BEGIN\nabcdefgh\n", "yes", "longer", "longer-still"])
    assert mask(b"abcdefgh yes longer-still") == b"*** yes ***"
    assert mask.split(b"x lon") == (b"x ", b"lon")
