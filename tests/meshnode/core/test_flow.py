import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck.errors import RemoteProtocolError
from potluck.wire.lease import CREDIT_BYTES
from potluck_node.core.flow import SEGMENT_BYTES_MAX, FlowReceiver, FlowSender

messages = st.lists(st.tuples(st.integers(1, 3 * SEGMENT_BYTES_MAX), st.booleans()), max_size=12)


def carry(sender, receiver):
    """Move frames and grants until nothing moves; returns what arrived."""
    arrived = []
    while frame := sender.frame():
        arrived += receiver.feed(frame)
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


@given(st.binary(max_size=300))
def test_garbage_raises_one_kind_of_error_or_waits_for_more(data):
    receiver = FlowReceiver()
    try:
        for message in receiver.feed(data):
            assert isinstance(message, bytes)
    except RemoteProtocolError:
        pass
