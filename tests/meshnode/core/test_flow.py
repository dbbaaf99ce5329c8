import os

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from potluck.errors import RemoteProtocolError
from potluck.wire.lease import CREDIT_BYTES
from potluck_node.core.flow import SEGMENT_BYTES_MAX, FlowReceiver, FlowSender
from potluck_node.core.meter import payload_digest
from potluck_node.payloads import NodeSpool, Room

messages = st.lists(st.tuples(st.integers(1, 3 * SEGMENT_BYTES_MAX), st.booleans()), max_size=12)


def carry(sender, receiver):
    """Move frames and grants until nothing moves; returns what arrived."""
    arrived = []
    while frame := sender.frame():
        arrived += [body for body, _ in receiver.feed(frame)]
        sender.grant(receiver.credit_due())
    return arrived


@given(messages)
def test_every_message_arrives_whole_and_data_keeps_its_order(sizes):
    sender, receiver = FlowSender(), FlowReceiver()
    data, control = [], []
    for number, (size, is_control) in enumerate(sizes):
        size = min(size, 1000) if is_control else size
        message = bytes([number]) * size
        (control if is_control else data).append(message)
        sender.post(message, control=is_control)
    arrived = carry(sender, receiver)
    assert sender.waiting_bytes == 0
    assert [each for each in arrived if each in data] == data
    assert sorted(arrived) == sorted(data + control)


def test_a_message_larger_than_all_credit_still_arrives():
    sender, receiver = FlowSender(), FlowReceiver()
    big = b"x" * (3 * CREDIT_BYTES)
    sender.post(big, control=False)
    assert carry(sender, receiver) == [big]


def test_nothing_is_sent_beyond_the_credit_and_control_overtakes():
    sender = FlowSender()
    sender.post(b"d" * (2 * CREDIT_BYTES), control=False)
    sent = 0
    while frame := sender.frame():
        sent += len(frame)
    assert CREDIT_BYTES - SEGMENT_BYTES_MAX <= sent <= CREDIT_BYTES + 1000
    sender.post(b"heartbeat", control=True)
    assert sender.frame().endswith(b"heartbeat")


def test_a_peer_that_sends_more_than_granted_is_caught():
    sender, receiver = FlowSender(credit=1 << 30), FlowReceiver()
    sender.post(b"d" * (2 * CREDIT_BYTES), control=False)
    with pytest.raises(RemoteProtocolError, match="granted"):
        while frame := sender.frame():
            list(receiver.feed(frame))


def test_a_peer_that_grants_without_end_is_caught():
    sender = FlowSender()
    with pytest.raises(RemoteProtocolError, match="credit"):
        sender.grant(10 * CREDIT_BYTES)


@given(st.lists(st.integers(1, 3 * SEGMENT_BYTES_MAX), min_size=1, max_size=4))
def test_payloads_go_ahead_of_their_message(sizes):
    sender, receiver = FlowSender(), FlowReceiver()
    contents = [bytes([number]) * size for number, size in enumerate(sizes)]
    sender.post(b"first", control=False)
    sender.post(b"with", contents, control=False)
    arrived = []
    while frame := sender.frame():
        arrived += receiver.feed(frame)
        sender.grant(receiver.credit_due())
    assert arrived == [(b"first", []), (b"with", contents)]


def test_a_payload_that_finds_no_room_is_an_error_and_gives_back_what_it_took():
    room = Room(3 * SEGMENT_BYTES_MAX)
    sender, receiver = FlowSender(), FlowReceiver(make=lambda: NodeSpool(room))
    sender.post(b"message", [bytes(4 * SEGMENT_BYTES_MAX)], control=False)
    with pytest.raises(RemoteProtocolError, match="no room"):
        while frame := sender.frame():
            list(receiver.feed(frame))
    assert room.used == 3 * SEGMENT_BYTES_MAX
    receiver.close()
    assert room.used == 0


def test_room_is_given_back_when_nobody_needs_the_payload_and_no_descriptor_is_left():
    room = Room(1 << 30)
    before = len(os.listdir("/proc/self/fd"))
    spool = NodeSpool(room)
    spool.write(b"abc" * 100_000)
    payload = spool.seal()
    assert (room.used, payload_digest(payload)) == (300_000, blake3(payload).digest())
    del payload
    assert room.used == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_each_peer_has_its_share_of_the_room():
    room = Room(1000)
    while not room.full_for("anne"):
        room.take(1, "anne")
    assert room.used == 751
    assert not room.full_for("bob")
    while not room.full_for("bob"):
        room.take(1, "bob")
    assert 180 < room.used - 751 < 190
    assert not room.full_for("carol")
    room.give_back(751, "anne")
    assert not room.full_for("anne")
    assert not room.full_for("bob")


def test_two_peers_that_fill_the_room_together_get_the_same():
    room = Room(7000)
    while not (room.full_for("anne") and room.full_for("bob")):
        for peer in ("anne", "bob"):
            if not room.full_for(peer):
                room.take(1, peer)
    assert abs(room._held["anne"] - 3000) <= 1
    assert abs(room._held["bob"] - 3000) <= 1


@given(st.binary(max_size=300))
def test_garbage_raises_one_kind_of_error_or_waits_for_more(data):
    receiver = FlowReceiver()
    try:
        for message, _ in receiver.feed(data):
            assert isinstance(message, bytes)
    except RemoteProtocolError:
        pass
