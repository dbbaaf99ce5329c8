import pytest

from potluck.errors import InvalidError, NotFoundError
from potluck.wire.tokens import AskTokens, DropToken, MakeToken, TokenMade
from potluck_node.tokens import Tokens


def test_tokens_last_and_end(tmp_path):
    tokens = Tokens(tmp_path / "tokens.json")
    made = tokens.answer(MakeToken(1, "me"))
    assert isinstance(made, TokenMade)
    again = Tokens(tmp_path / "tokens.json")
    assert again.admits(made.key, made.secret)
    assert not again.admits(made.key, "guess")
    assert not again.admits("", "")
    assert made.secret not in (tmp_path / "tokens.json").read_text()
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0
    assert [each.note for each in again.answer(AskTokens(2)).tokens] == ["me"]
    again.answer(DropToken(3, made.key))
    assert not again.admits(made.key, made.secret)
    assert not Tokens(tmp_path / "tokens.json").admits(made.key, made.secret)
    with pytest.raises(NotFoundError):
        again.answer(DropToken(4, made.key))


def test_a_torn_file_is_named(tmp_path):
    (tmp_path / "tokens.json").write_text("[")
    with pytest.raises(InvalidError, match=r"tokens\.json"):
        Tokens(tmp_path / "tokens.json")
