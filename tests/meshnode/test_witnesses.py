"""Heads are cosigned over a transport: kept by their owner, and in the export; and a witness that cannot keep signs
nothing."""

import pytest
import trio
from tests.ledger.test_journal import CALLER, PROVIDER, STRANGER, signed
from tests.meshnode.clocks import HandClock

from potluck import wire
from potluck.wire import journal as messages
from potluck_ledger.entries import Checkpoint, sign
from potluck_ledger.journal import Journal, JournalError
from potluck_ledger.witness import read_cosigned
from potluck_node.journal_sync import JOURNAL_PROTOCOL, JournalSync
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport
from potluck_node.witnesses import COSIGN_S, Witnesses


@pytest.fixture
async def three(tmp_path, nursery, autojump_clock):
    """An owner and its two witnesses, of which both must sign, connected."""
    network, made = MemoryNetwork(), []
    for key in (CALLER, PROVIDER, STRANGER):
        transport = MemoryTransport(network, key.peer, lambda key, value: None)
        journal = Journal(tmp_path / key.peer, key)
        named = (PROVIDER.peer, STRANGER.peer) if key is CALLER else ()
        witnesses = Witnesses(key, journal, named, 2)
        sync = JournalSync(transport, journal, "lab", HandClock(), witnesses)
        await nursery.start(transport.serve)
        await nursery.start(sync.serve)
        made.append((journal, transport))
    for _, transport in made[1:]:
        await made[0][1].connect(transport.addresses()[0])
    yield made
    for journal, _ in made:
        journal.close()


async def test_a_head_is_cosigned_whenever_it_has_changed(autojump_clock, three):
    (ours, _), (theirs, _), _ = three
    for number in range(1, 4):
        ours.append(signed(number), number)
        await trio.sleep(2 * COSIGN_S)
        checkpoint, witnesses = read_cosigned(ours.witnessed(), CALLER.peer)
        assert (checkpoint.sequence, checkpoint.head) == ours.head() == theirs.cosigned(CALLER.peer)
        assert witnesses == [PROVIDER.peer, STRANGER.peer]


async def test_one_signature_of_two_is_not_enough(autojump_clock, three, monkeypatch):
    (ours, _), (theirs, _), _ = three

    def fail(owner, sequence, head):
        raise JournalError("no disk")

    # It dies, as it were, between the check and the signature: what it did not keep it does not sign.
    monkeypatch.setattr(theirs, "keep_cosigned", fail)
    ours.append(signed(1), 1)
    await trio.sleep(2 * COSIGN_S)
    assert ours.witnessed() == b""
    monkeypatch.undo()
    await trio.sleep(2 * COSIGN_S)
    assert read_cosigned(ours.witnessed(), CALLER.peer)[0].sequence == 1


async def test_another_history_is_not_cosigned(autojump_clock, three):
    (ours, transport), (theirs, _), _ = three
    ours.append(signed(1), 1)
    await trio.sleep(2 * COSIGN_S)
    kept = theirs.cosigned(CALLER.peer)
    for sequence in (1, 2):
        forged = sign(CALLER, Checkpoint(CALLER.peer, sequence, bytes([7]) * 32, 1, 0, 0)).encode()
        stream = await transport.open(PROVIDER.peer, JOURNAL_PROTOCOL)
        await stream.send(wire.encode(messages.AskCosign(forged)))
        answer = wire.decode(await stream.receive(), messages.Cosigned)
        await stream.aclose()
        assert answer.refused
        assert not answer.checkpoint
    assert theirs.cosigned(CALLER.peer) == kept
