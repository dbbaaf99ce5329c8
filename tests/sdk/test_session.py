import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck import wire
from potluck.errors import LocalProtocolError, RemoteProtocolError
from potluck.frames import FRAME_BYTES_MAX, FrameReader, encode_frame
from potluck.output import PlainOutput
from potluck.session import Session
from potluck.wire import FunctionSpec, control

SPEC = FunctionSpec("a", "f", "i", "3.11", "m", "f")


class Recorder(PlainOutput):
    def __init__(self):
        super().__init__()
        self.seen = []

    def notice(self, message):
        self.seen.append(message.text)


def written(session):
    pieces = []
    while piece := session.outbox.next():
        pieces.append(piece.data)
    return b"".join(pieces)


def frames_of(data):
    return [wire.decode(body, control.ToNode) for body in FrameReader().feed(data)]


def feed(session, *messages):
    session.receive(b"".join(encode_frame(wire.encode(message)) for message in messages))


@pytest.fixture
def session():
    return Session(Recorder())


def test_inputs_go_out_in_order_and_outcomes_come_in_any(session):
    call = session.open_call(SPEC)
    for payload in (b"a", b"b"):
        session.add_input(call, payload)
    session.end_inputs(call)
    sent = frames_of(written(session))
    assert [type(message).__name__ for message in sent] == ["OpenCall", "CallInput", "CallInput", "EndInputs"]
    feed(session, control.CallOutcome(call.number, 1, b"B"), control.CallOutcome(call.number, 0, b"A"))
    assert [call.take().payload, call.take().payload, call.take()] == [b"B", b"A", None]
    assert call.finished


def test_no_more_inputs_than_the_node_allows(session):
    call = session.open_call(SPEC)
    for _ in range(control.INPUTS_AHEAD_MAX):
        session.add_input(call, b"")
    assert not call.room
    with pytest.raises(LocalProtocolError):
        session.add_input(call, b"")
    feed(session, control.CallOutcome(call.number, 0, b""))
    call.take()
    assert call.room


def test_leaving_a_call_early_cancels_it_and_late_outcomes_are_dropped(session):
    call = session.open_call(SPEC)
    session.add_input(call, b"")
    written(session)
    session.close_call(call, "ctrl-c")
    assert frames_of(written(session)) == [control.CancelCall(call.number, "ctrl-c")]
    feed(session, control.CallOutcome(call.number, 0, b"late"))
    assert call.take() is None


def test_a_finished_call_is_not_cancelled(session):
    call = session.open_call(SPEC)
    session.end_inputs(call)
    written(session)
    session.close_call(call, "done")
    assert written(session) == b""


def test_questions_get_their_own_answers(session):
    one, two = session.ask(control.AskStatus), session.ask(control.AskJournal)
    feed(session, control.JournalAnswer(two.number, "me", ()))
    assert (one.answer, two.answer) == (None, control.JournalAnswer(two.number, "me", ()))


def test_an_answer_to_nothing_breaks_the_protocol(session):
    with pytest.raises(RemoteProtocolError):
        feed(session, control.Done(99))


def test_an_outcome_of_an_input_that_was_never_sent_breaks_the_protocol(session):
    call = session.open_call(SPEC)
    with pytest.raises(RemoteProtocolError):
        feed(session, control.CallOutcome(call.number, 0, b""))


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_frames_survive_any_cutting(bodies, cuts):
    data, reader, out = b"".join(map(encode_frame, bodies)), FrameReader(), []
    position = number = 0
    while position < len(data):
        step = cuts[number % len(cuts)]
        out += reader.feed(data[position : position + step])
        position += step
        number += 1
    assert out == bodies
    assert reader.pending == 0


def test_a_frame_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(RemoteProtocolError, match="announces"):
        list(FrameReader(limit=10).feed(b"\0\0\0\x0b"))
    with pytest.raises(LocalProtocolError):
        encode_frame(bytes(FRAME_BYTES_MAX + 1))


@given(st.binary(max_size=300))
def test_garbage_messages_raise_one_kind_of_error(data):
    with contextlib.suppress(RemoteProtocolError):
        wire.decode(data, control.FromNode)


def test_a_newer_peers_extra_fields_are_ignored():
    import msgspec

    longer = msgspec.msgpack.encode(["Done", 7, "a field of the future"])
    assert wire.decode(longer, control.FromNode) == control.Done(7)
