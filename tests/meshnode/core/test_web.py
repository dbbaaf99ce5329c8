"""What the gateway decides, what the two cores do with requests."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.meshnode.core.test_calls import Caller
from tests.meshnode.core.test_provider import Provider
from tests.meshnode.core.worlds import spec

from potluck.errors import ExecutionError, FunctionTimeoutError, NoPeerError
from potluck.wire import Failure, web
from potluck.wire.common import Web
from potluck.wire.lease import InputDone, InputItem, PiecesTaken
from potluck.wire.worker import InputSucceeded
from potluck_node.core import events as ev
from potluck_node.core import provider_events as pev
from potluck_node.core import staff
from potluck_node.core import web as core
from potluck_node.core.admission import nonsense
from potluck_node.core.levels import Standing
from potluck_node.core.provider import PIECE_BYTES_AHEAD_MAX

SITE = spec(web=Web("asgi", "site"))


# Routes and names


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/app/label", ("app", "label", "/app/label")),
        ("/My.App_1/a-b/", ("My.App_1", "a-b", "/My.App_1/a-b")),
        ("/app/label/x/y", ("app", "label", "/app/label")),
        ("/app/label/\n", ("app", "label", "/app/label")),
        ("/app/labelx?", None),
        ("/app", None),
        ("/app/LABEL", None),
        ("//label", None),
        ("/", None),
        ("", None),
    ],
)
def test_routes(path, found):
    assert core.route(path) == found


@given(st.text(max_size=300))
def test_any_path_has_a_route_below_which_it_is_or_none(path):
    found = core.route(path)
    assert found is None or (path == found.root or path.startswith(f"{found.root}/"))


@pytest.mark.parametrize(
    ("host", "ours"),
    [(b"localhost:8317", True), (b"LOCALHOST", True), (b"[::1]:1", True), (b"evil.example", False), (b"", False),
     (b"localhost.evil.example", False), (b"evil@localhost", False)],
)  # fmt: skip
def test_only_our_names_are_answered_to(host, ours):
    assert core.names_us(((b"Host", host),), ("localhost", "[::1]")) == ours
    assert not core.names_us((), ("localhost",))
    assert not core.names_us(((b"host", b"localhost"), (b"host", host + b"x")), ("localhost", "[::1]"))


def test_tokens_are_read_and_not_passed_on():
    headers = ((b"Modal-Key", b"k"), (b"potluck-secret", b"s"), (b"X-Own", b"1"))
    assert core.proof(headers) == ("k", "s")
    assert core.passed_on(headers) == ((b"x-own", b"1"),)
    assert core.proof(()) == ("", "")


@pytest.mark.parametrize(
    ("headers", "size"),
    [(((b"content-length", b"12"),), 12), ((), 0), (((b"transfer-encoding", b"chunked"),), None),
     (((b"content-length", b"-1"),), None)],
)  # fmt: skip
def test_the_length_of_a_body(headers, size):
    assert core.body_bytes(headers) == size


# Doors


def test_one_function_leaves_room_for_others_and_all_have_a_limit(monkeypatch):
    monkeypatch.setattr(core, "FUNCTION_REQUESTS_MAX", 2)
    monkeypatch.setattr(core, "REQUESTS_MAX", 3)
    doors = core.Doors()
    assert [doors.enter("a"), doors.enter("a"), doors.enter("a")] == [None, None, core.BUSY]
    assert [doors.enter("b"), doors.enter("c")] == [None, core.OVERLOADED]
    assert (core.BUSY.status, core.OVERLOADED.status) == (429, 503)
    assert (b"retry-after", b"1") in core.BUSY.headers
    doors.leave("a")
    assert doors.enter("a") is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_what_leaves_makes_room_and_nothing_is_forgotten(moves):
    doors, inside = core.Doors(), []
    for enters, function in moves:
        if enters and doors.enter(function) is None:
            inside.append(function)
        elif not enters and function in inside:
            inside.remove(function)
            doors.leave(function)
    assert doors.total == len(inside)
    assert doors.functions == {name: inside.count(name) for name in set(inside)}


# Replies

headers = st.lists(st.tuples(st.sampled_from([b"x", b"Connection", b"bad name"]), st.binary(max_size=4)), max_size=2)
items = st.one_of(
    st.builds(web.ResponseHead, st.integers(0, 999), headers.map(tuple), st.binary(max_size=3), st.booleans()),
    st.builds(web.BodyPiece, st.binary(max_size=3), st.booleans()),
    st.builds(web.SocketAccepted, st.none(), headers.map(tuple)),
    st.builds(web.SocketText, st.text(max_size=3)),
    st.builds(web.SocketBytes, st.binary(max_size=3)),
    st.builds(web.SocketClosed, st.integers(-1, 70_000), st.text(max_size=200)),
)


@given(st.booleans(), st.lists(items, max_size=12))
def test_whatever_a_worker_says_its_client_hears_a_sound_answer(socket, said):
    reply, heard = core.Reply(socket), []
    try:
        for item in said:
            heard += reply.take(item)
    except core.Broken:
        pass
    heard += reply.answer(core.RAISED)
    check_sound(heard, socket)


def check_sound(heard, socket):
    kinds = [message["type"].removeprefix("websocket.").removeprefix("http.") for message in heard]
    kinds = [kind.removeprefix("http.") for kind in kinds]
    if kinds and kinds[0] == "response.start":
        assert set(kinds[1:]) <= {"response.body"}
        assert not [message for message in heard[1:-1] if not message["more_body"]]
    else:
        assert socket
        assert kinds[0] in ("accept", "close")
        assert set(kinds[1:-1]) <= {"send"}
        assert kinds[-1] == "close"
    for message in heard:
        for name, value in message.get("headers", ()):
            assert name not in (b"connection", b"bad name")
            assert not {b"\r", b"\n", b"\0"} & {value[index : index + 1] for index in range(len(value))}
        assert message.get("code", 1000) in range(1000, 5000)


def test_headers_that_would_write_another_response_are_refused():
    for header in ((b"x", b"1\r\nSet-Cookie: a"), (b"x: y", b""), (b"", b"")):
        with pytest.raises(core.Broken):
            list(core.Reply().take(web.ResponseHead(200, (header,))))
    with pytest.raises(core.Broken):
        list(core.Reply().take(web.ResponseHead(200, ((b"x", bytes(1 << 17)),))))


@pytest.mark.parametrize(
    ("error", "status"), [(FunctionTimeoutError("x"), 504), (NoPeerError("x"), 503), (ExecutionError("x"), 502)]
)
def test_failures_have_a_status_and_keep_their_words(error, status):
    answer = core.failed(Failure.of(error))
    assert answer.status == status
    assert answer.text != "x\n"


# The caller's core


def begun(function=SITE):
    caller = Caller("ann", "bob", function=function)
    lease = caller.lease()
    sent = caller.only(ev.SendInput)
    caller.send(ev.InputBegan(lease, sent.input, "w1"))
    return caller, lease, sent


def test_pieces_follow_their_request_and_what_was_taken_comes_back():
    caller, lease, sent = begun()
    assert caller.only(ev.Began) == ev.Began("c", 0, "w1")
    caller.send(ev.PiecesTaken(lease, sent.input, 0))
    assert caller.only(ev.DeliverTaken) == ev.DeliverTaken("c", 0, 0)
    caller.send(ev.PieceAdded("c", 0, b"piece"))
    assert caller.only(ev.SendPiece) == ev.SendPiece(lease, sent.input, b"piece")
    caller.finish(lease, sent)
    assert not caller.send(ev.PieceAdded("c", 0, b"late"))
    assert not caller.send(ev.PiecesTaken(lease, sent.input, 5))


def test_a_request_that_has_begun_never_runs_again():
    caller, lease, _ = begun()
    caller.send(ev.LeaseLost(lease, "gone"))
    assert caller.only(ev.Deliver).failure.kind == "execution"
    caller, lease, sent = begun()
    caller.finish(lease, sent, lost="its worker died")
    assert caller.only(ev.Deliver).failure.kind == "execution"


def test_one_that_has_not_begun_goes_elsewhere():
    caller = Caller("ann", "bob", function=SITE)
    lease = caller.lease()
    caller.send(ev.LeaseLost(lease, "gone"))
    assert not caller.all(ev.Deliver)
    assert caller.all(ev.OpenLease)


def test_answers_of_peers_that_are_not_trusted_are_passed_on_as_they_are():
    caller = Caller("ann", function=SITE)
    caller.core._standing = caller.core._hiring.standing = lambda peer: Standing("stranger", "")
    lease = caller.lease()
    sent = caller.only(ev.SendInput)
    caller.send(ev.ItemYielded(lease, InputItem(sent.input, sent.attempt, 0, b"any bytes")))
    assert caller.only(ev.DeliverItem).payload == b"any bytes"
    caller.finish(lease, sent, payload=b"more")
    assert caller.only(ev.Deliver).payload == b"more"


# The provider's core


def answering():
    provider = Provider()
    pool, worker = provider.ready(function=SITE)
    return provider, pool, worker


def test_a_worker_gets_the_pieces_and_says_what_it_took():
    provider, pool, worker = answering()
    provider.send(pev.PieceCame("l1", 1, b"abc"))
    assert provider.only(pev.SendPiece) == pev.SendPiece(pool, worker, 1, b"abc")
    provider.send(pev.PiecesTaken(pool, worker, 1, 3))
    assert provider.posts(PiecesTaken) == [PiecesTaken(1, 3)]
    for lie in (2, 4):
        provider.send(pev.PiecesTaken(pool, worker, 1, lie))
        assert not provider.posts(PiecesTaken)


def test_a_caller_that_sends_more_than_the_worker_wants_loses_its_request():
    provider, _, _ = answering()
    for _ in range(PIECE_BYTES_AHEAD_MAX // 65536 + 1):
        provider.send(pev.PieceCame("l1", 1, bytes(65536)))
    assert provider.posts(InputDone)[0].lost
    assert not provider.send(pev.PieceCame("l1", 1, b"more"))


def test_a_client_that_leaves_does_not_cost_the_worker():
    provider, pool, worker = answering()
    provider.send(pev.InputDropped("l1", 1, "the client left"))
    assert provider.only(pev.StopInput) == pev.StopInput(pool, worker, 1)
    assert not provider.all(pev.KillWorker)
    provider.send(pev.OutcomeCame(pool, worker, InputSucceeded(1, b"")))
    assert not provider.all(pev.KillWorker)


def test_a_request_that_does_not_end_costs_the_worker_after_a_while():
    provider, pool, worker = answering()
    provider.send(pev.InputDropped("l1", 1, "the client left"))
    assert provider.core.wake_us == provider.now_us + staff.GRACE_US
    provider.now_us += staff.GRACE_US
    provider.send(pev.Tick())
    assert provider.only(pev.KillWorker) == pev.KillWorker(pool, worker)


def test_functions_that_answer_nothing_there_is_are_refused():
    assert not nonsense(SITE)
    assert nonsense(spec(web=Web("gopher", "x")))
    assert nonsense(spec(web=Web("asgi", "x"), parameters=b"p"))
    assert nonsense(spec(web=Web("asgi", "x", attribute="page")))
    assert not nonsense(spec(web=Web("asgi", "x", attribute="page"), parameters=b"p"))


def test_web_is_part_of_the_identity():
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(SITE), type=type(SITE)) == SITE
