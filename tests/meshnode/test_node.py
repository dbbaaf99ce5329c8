"""What a node says that cannot begin."""

import pytest
from tests.ledger.test_journal import CALLER, PROVIDER, signed

from potluck.errors import InvalidError
from potluck_ledger.journal import Journal
from potluck_node.node import _own_journal


def journal(path):
    made = Journal(path, CALLER)
    for number in range(40):
        made.append(signed(number), number)
    made.close()


def damage(path):
    data = bytearray(path.read_bytes())
    # Behind the first page, where the tables are: entries and what they record.
    data[4096:] = bytes(each ^ 1 for each in data[4096:])
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["damaged", "no database", "another's"])
def test_a_journal_that_does_not_hold_is_named_with_what_to_do(tmp_path, how):
    path, key = tmp_path / "journal.sqlite", PROVIDER if how == "another's" else CALLER
    if how == "no database":
        path.write_text("nonsense " * 1000)
    else:
        journal(path)
    if how == "damaged":
        damage(path)
    with pytest.raises(InvalidError, match="does not hold") as caught:
        _own_journal(path, key)
    assert caught.value.why
    assert f"Restore the newest backup of {path}" in caught.value.fix
