import pytest

from potluck_images.errors import ImageBuildError
from potluck_images.ignore import Ignore


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        (["*.log"], "a.log", True),
        (["*.log"], "sub/a.log", False),
        (["**/*.log"], "a.log", True),
        (["**/*.log"], "sub/deep/a.log", True),
        (["sub"], "sub/deep/a", True),
        (["sub/"], "sub", True),
        (["./sub"], "sub/x", True),
        (["sub"], "subway", False),
        (["a?c"], "abc", True),
        (["a?c"], "a/c", False),
        (["[ab].txt"], "b.txt", True),
        (["[ab].txt"], "c.txt", False),
        (["**", "!**/*.py"], "pkg/mod.py", False),
        (["**", "!**/*.py"], "pkg/data.bin", True),
        (["*.md", "!README.md"], "README.md", False),
        (["!README.md", "*.md"], "README.md", True),
        (["# comment", "", "x"], "x", True),
        (["# comment"], "# comment", False),
        (["a.b"], "axb", False),
        (["[*]"], "*", True),
        (["[*]"], "x", False),
    ],
)
def test_patterns_mean_what_they_do_for_docker(patterns, path, ignored):
    assert Ignore(patterns)(path) is ignored


def test_a_folder_is_left_out_unseen_only_when_nothing_in_it_can_be_wanted():
    assert Ignore(["big"]).prunes("big")
    assert not Ignore(["big", "!big/keep"]).prunes("big")


def test_a_pattern_that_cannot_be_read_is_named():
    with pytest.raises(ImageBuildError, match=r"\[z-a\]"):
        Ignore(["[z-a]"])
