"""Tokens on both databases, and on two nodes that share one."""

import hashlib
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
import trio
from sqlalchemy import insert
from tests.meshnode.clocks import HandClock

from potluck.errors import InvalidError, NotFoundError
from potluck.wire.tokens import AskTokens, DropToken, MakeToken, TokenMade
from potluck_ledger.keys import PrivateKey
from potluck_node.state.app_key import AppKey
from potluck_node.state.app_tables import TOKENS
from potluck_node.state.service import State
from potluck_node.tokens import Tokens

ONE, TWO = PrivateKey(b"1" * 32), PrivateKey(b"2" * 32)


@asynccontextmanager
async def served(place, folder, key=ONE):
    state = State(place, key.peer, HandClock(), 1 << 30)
    tokens = Tokens(state, AppKey(key, lambda peer: True), folder / "tokens.json")
    async with trio.open_nursery() as nursery:
        await nursery.start(state.serve)
        await nursery.start(tokens.serve)
        with trio.fail_after(30):
            yield tokens
        nursery.cancel_scope.cancel()
    state.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    return tmp_path / "state.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres").fresh()


async def test_tokens_last_and_end(place, tmp_path):
    async with served(place, tmp_path) as tokens:
        made = await tokens.answer(MakeToken(1, "me"))
        assert isinstance(made, TokenMade)
    async with served(place, tmp_path) as again:
        assert again.admits(made.key, made.secret)
        assert not again.admits(made.key, "guess")
        assert not again.admits("", "")
        assert [each.note for each in (await again.answer(AskTokens(2))).tokens] == ["me"]
        await again.answer(DropToken(3, made.key))
        assert not again.admits(made.key, made.secret)
        with pytest.raises(NotFoundError):
            await again.answer(DropToken(4, made.key))
    async with served(place, tmp_path) as last:
        assert not last.admits(made.key, made.secret)


async def test_nodes_of_one_database_admit_and_refuse_together(postgres, tmp_path):
    url = postgres.fresh()
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(served(url, tmp_path, key)) for key in (ONE, TWO)]
        made = await one.answer(MakeToken(1, "me"))
        while not two.admits(made.key, made.secret):
            await trio.sleep(0.01)
        await two.answer(DropToken(2, made.key))
        while one.admits(made.key, made.secret):
            await trio.sleep(0.01)


async def test_who_only_has_the_database_adds_none(tmp_path):
    forged = msgspec.msgpack.encode(["pk-evil", hashlib.sha256(b"x").hexdigest(), "", 0])
    async with served(tmp_path / "state.sqlite", tmp_path) as tokens:
        await tokens._state.transact(lambda work: work.db.execute(insert(TOKENS).values(key="pk-evil", locked=forged)))
        assert (await tokens.answer(AskTokens(1))).tokens == ()
        assert not tokens.admits("pk-evil", "x")


async def test_those_of_the_file_that_was_before_are_moved(tmp_path):
    old = {"key": "pk-1", "digest": hashlib.sha256(b"ps-1").hexdigest(), "note": "old", "created_us": 5}
    (tmp_path / "tokens.json").write_bytes(msgspec.json.encode([old]))
    for _ in range(2):
        async with served(tmp_path / "state.sqlite", tmp_path) as tokens:
            assert tokens.admits("pk-1", "ps-1")
            assert not (tmp_path / "tokens.json").exists()


def test_a_torn_file_is_named(tmp_path):
    (tmp_path / "tokens.json").write_text("[")
    state = State(tmp_path / "state.sqlite", ONE.peer, HandClock(), 1 << 30)
    with pytest.raises(InvalidError, match=r"tokens\.json"):
        Tokens(state, AppKey(ONE, lambda peer: True), tmp_path / "tokens.json")
    state.close()
