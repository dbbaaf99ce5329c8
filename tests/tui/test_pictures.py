"""The pages as pictures, at two sizes, dark and light: those in the docs are the terminal's own."""

import asyncio
import difflib
import re

import pytest
from tests.tui.pictures import FOLDER, SIZES, THEMES, names, pictures

HINT = "If that is meant: make pictures"


def words(picture):
    """What a picture says, a line of text each."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_pages_look_as_in_the_docs(size, theme):
    for name, picture in asyncio.run(pictures(size, theme)).items():
        kept = (FOLDER / f"{name}.svg").read_text()
        changes = [each for each in difflib.ndiff(words(kept), words(picture)) if not each.startswith(" ")]
        assert not changes, f"{name} says something else. {HINT}"
        assert picture == kept, f"{name} looks otherwise. {HINT}"


def test_there_is_no_picture_that_nothing_makes():
    assert {path.stem for path in FOLDER.iterdir()} == set(names())


def test_pictures_are_small_and_fetch_nothing():
    for path in FOLDER.iterdir():
        assert path.stat().st_size < 30_000
        assert "http" not in path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
