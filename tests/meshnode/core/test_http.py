"""Requests and answers of HTTP/1.1: the same whatever the pieces that they come in, and nothing that could be two."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck.wire.web import ResponseHead
from potluck_node.core.http import END, Event, Head, Requests, Response
from potluck_node.core.web import HEADER_BYTES_MAX, Answer, Broken, Reply

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(
    lambda name: name not in ("host", "connection", "upgrade", "expect", "te", "trailer")
)
VALUE = st.text("abcXYZ 019;=,\t", max_size=30).map(str.strip)
BODY = st.binary(max_size=300)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, tuple[str, bytes, bytes]]:
    """The bytes of a request; its method, target and body."""
    method, target = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD"])), draw(st.sampled_from(["/", "/a/b%20c?d=e"]))
    head = f"{method} {target} HTTP/1.1\r\nHost: here\r\n"
    head += "".join(f"X-{name}: {value}\r\n" for name, value in draw(st.lists(st.tuples(TOKEN, VALUE), max_size=4)))
    body = draw(BODY)
    if draw(st.booleans()):
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
        parts = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
        data = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
    else:
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    return data, (method, target.encode(), body)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places) if end > start]


def read(pieces: list[bytes]) -> list[Event]:
    """All that is said, with bodies whole."""
    parser, found = Requests(), list[Event]()
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += event
            else:
                found.append(event)
    return found


def told(events: list[Event]) -> list[tuple[str, bytes, bytes]]:
    found: list[tuple[str, bytes, bytes]] = []
    for event in events:
        if isinstance(event, Head):
            found.append((event.method, event.target, b""))
        elif isinstance(event, bytes):
            found[-1] = (*found[-1][:2], event)
    return found


@given(st.lists(requests(), min_size=1, max_size=3), st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_of_bytes_gives_the_same_requests(made, cuts):
    data = b"".join(each for each, _ in made)
    assert read(split(data, cuts)) == read([data])
    assert told(read(split(data, cuts))) == [each for _, each in made]


@given(requests(), st.integers(0, 2000))
def test_a_part_of_a_request_is_no_request(made, cut):
    data = made[0][: cut % len(made[0])]
    assert END not in read([data])


@given(st.one_of(st.binary(max_size=400), st.builds(lambda a, b: a[0] + b, requests(), st.binary(max_size=200))),
       st.lists(st.integers(0, 2000), max_size=5))  # fmt: skip
def test_garbage_is_refused_once_and_ends_the_connection(data, cuts):
    events = read(split(data, cuts))
    refused = [event for event in events if isinstance(event, Answer)]
    assert len(refused) <= 1
    if refused:
        assert events[-1] is refused[0]
        assert 400 <= refused[0].status <= 501


@given(st.binary(min_size=1, max_size=60), requests())
def test_what_follows_garbage_is_never_read_as_a_request(garbage, made):
    parser = Requests()
    if any(isinstance(event, Answer) for event in parser.feed(garbage)):
        assert parser.feed(made[0]) == []


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\n X: a\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\nY: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
        b"GET / HTTP/1.1\r\nHost: x\rY: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT other:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_two_servers_could_read_differently_is_refused(data, size):
    events = read([data[start : start + size] for start in range(0, len(data), size)])
    assert isinstance(events[-1], Answer)
    assert END not in events


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nHost: x\r\nX: ", POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: "]
)
def test_neither_a_head_nor_what_frames_a_body_is_without_end(start):
    parser, given_bytes = Requests(), 0
    parser.feed(start)
    while not any(isinstance(event, Answer) for event in parser.feed(b"y" * 1000)):
        given_bytes += 1000
        assert given_bytes < HEADER_BYTES_MAX * 2


def test_after_a_last_request_nothing_is_read():
    events = read([b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n"])
    assert told(events) == [("GET", b"/", b"")]
    assert not any(isinstance(event, Answer) for event in events)


def test_trailers_are_no_headers():
    data = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: evil\r\n\r\n"
    events = read([data])
    assert isinstance(events[0], Head)
    assert dict(events[0].headers) == {b"host": b"x", b"transfer-encoding": b"chunked"}
    assert events[1:] == [b"a", END]


def test_what_follows_the_handshake_of_a_websocket_is_left():
    parser = Requests()
    ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    head, _ = parser.feed(ask + b"\x81\x00")
    assert isinstance(head, Head)
    assert head.websocket
    assert parser.rest == b"\x81\x00"


HEADERS = st.sampled_from([(), ((b"content-type", b"text/plain"),)])


@given(st.sampled_from(["GET", "HEAD", "POST"]), st.sampled_from([200, 204, 304, 404]), HEADERS,
       st.lists(BODY, min_size=1, max_size=4), st.booleans(), st.sampled_from(["1.1", "1.0"]))  # fmt: skip
def test_clients_read_what_was_said(method, status, headers, parts, states_length, version):
    body = b"".join(parts)
    if states_length:
        headers = (*headers, (b"content-length", b"%d" % len(body)))
    answer, reply = Response(Head(method, version, b"/", (), True, False, False)), Reply()
    data = b"".join(
        answer.take(message, b"date: now\r\n") for message in reply.take(ResponseHead(status, headers, b"", True))
    )
    for part in parts[:-1]:
        data += answer.take({"type": "http.response.body", "body": part, "more_body": True}, b"")
    data += answer.take({"type": "http.response.body", "body": parts[-1], "more_body": False}, b"")
    assert answer.over
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if not answer.keep_alive:
        client.receive_data(b"")
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert head.status_code == status
    read_back = b""
    while isinstance(event := client.next_event(), h11.Data):
        read_back += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert read_back == (b"" if method == "HEAD" or status in (204, 304) else body)
    assert not client.trailing_data[0]


@pytest.mark.parametrize(("said", "sent"), [(3, b"abcdef"), (9, b"abc")])
def test_a_length_that_is_wrong_ends_the_connection_and_adds_nothing(said, sent):
    answer, reply = Response(Head("GET", "1.1", b"/", (), True, False, False)), Reply()
    head = ResponseHead(200, ((b"content-length", b"%d" % said),), sent)
    data = b"".join(answer.take(message, b"") for message in reply.take(head))
    assert data.endswith(b"\r\n\r\nabc")
    assert not answer.keep_alive


@pytest.mark.parametrize("values", [(b"1", b"1"), (b"-1",), (b"1a",), (b"9" * 30,)])
def test_a_length_that_is_none_is_no_answer(values):
    with pytest.raises(Broken):
        list(Reply().take(ResponseHead(200, tuple((b"Content-Length", value) for value in values), b"a")))
