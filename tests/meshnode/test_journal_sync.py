"""Journals over a transport: heads are told and followed, and nonsense of a peer harms nobody."""

import pytest
import trio
from tests.ledger.test_journal import CALLER, PROVIDER, signed
from tests.meshnode.clocks import HandClock

from potluck import wire
from potluck.wire import journal as messages
from potluck_ledger.entries import Checkpoint, sign
from potluck_ledger.journal import Journal
from potluck_ledger.keys import PrivateKey
from potluck_node.journal_sync import JOURNAL_PROTOCOL, PROOF_AGAIN_S, TELL_S, JournalSync
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport

WITNESS = PrivateKey(b"w" * 32)


@pytest.fixture
async def two(tmp_path, nursery, autojump_clock):
    """A caller's and a provider's side, connected."""
    network, made = MemoryNetwork(), []
    for key in (CALLER, PROVIDER):
        transport = MemoryTransport(network, key.peer, lambda key, value: None)
        journal = Journal(tmp_path / key.peer, key)
        sync = JournalSync(transport, journal, "lab", HandClock())
        await nursery.start(transport.serve)
        await nursery.start(sync.serve)
        made.append((journal, sync, transport))
    await made[0][2].connect(made[1][2].addresses()[0])
    yield made
    for journal, _, _ in made:
        journal.close()


async def test_each_follows_the_other(autojump_clock, two):
    (ours, _, _), (_, theirs, _) = two
    for number in range(1, 6):
        ours.append(signed(number), number)
        await trio.sleep(2 * TELL_S)
        assert theirs.entries(CALLER.peer) == number


async def test_who_tells_two_heads_is_convicted_once(autojump_clock, two):
    (_, _, transport), (_, theirs, _) = two
    convicted = []
    theirs.convicted = convicted.append
    for flavour in (1, 2, 3):
        checkpoint = sign(CALLER, Checkpoint(CALLER.peer, 4, bytes([flavour]) * 32, 1, 0, 0)).encode()
        await transport.publish("/potluck/lab/journals/1", wire.encode(messages.HeadTold(checkpoint)))
        await trio.sleep(1)
    assert convicted == [CALLER.peer]


async def test_who_comes_later_is_told_of_forks_too(autojump_clock, two, tmp_path, nursery):
    (_, _, transport), (_, theirs, provider) = two
    for flavour in (1, 2):
        checkpoint = sign(CALLER, Checkpoint(CALLER.peer, 4, bytes([flavour]) * 32, 1, 0, 0)).encode()
        await transport.publish("/potluck/lab/journals/1", wire.encode(messages.HeadTold(checkpoint)))
    await trio.sleep(1)
    assert CALLER.peer in theirs.proofs()
    late = MemoryTransport(transport._network, WITNESS.peer, lambda key, value: None)
    journal = Journal(tmp_path / WITNESS.peer, WITNESS)
    sync, convicted = JournalSync(late, journal, "lab", HandClock()), []
    sync.convicted = convicted.append
    await nursery.start(late.serve)
    await nursery.start(sync.serve)
    await late.connect(provider.addresses()[0])
    await trio.sleep(PROOF_AGAIN_S - 10)
    assert convicted == []
    await trio.sleep(20)
    assert convicted == [CALLER.peer]
    journal.close()


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", wire.encode(messages.HeadTold(b"x")), wire.encode(messages.ForkTold(b"x"))]
)
async def test_nonsense_is_passed_over(autojump_clock, two, data):
    (ours, _, transport), (_, theirs, _) = two
    await transport.publish("/potluck/lab/journals/1", data)
    ours.append(signed(1), 1)
    await trio.sleep(2 * TELL_S)
    assert theirs.entries(CALLER.peer) == 1


async def test_what_is_asked_for_is_bounded(autojump_clock, two):
    (ours, _, _), (_, _, transport) = two
    for number in range(1, 4):
        ours.append(signed(number), number)
    for after, most, count in ((0, 1 << 40, 3), (1, 1, 1), (-5, -5, 0), (9, 9, 0)):
        stream = await transport.open(CALLER.peer, JOURNAL_PROTOCOL)
        await stream.send(wire.encode(messages.AskEntries(after, most)))
        assert len(wire.decode(await stream.receive(), messages.EntriesTold).entries) == count
        await stream.aclose()
