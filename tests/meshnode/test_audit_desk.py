"""What a node tells those who audit its mesh: whose journals it knows, and what peers of a lab show."""

import pytest
import trio
from tests.ledger.test_journal import CALLER, PROVIDER, STRANGER, receipt, signed
from tests.meshnode.clocks import HandClock

from potluck import wire
from potluck.errors import InvalidError
from potluck.wire import audit as messages
from potluck.wire import journal as gossip
from potluck.wire.accounts import AccountsTold, AskAccounts
from potluck.wire.control import Done
from potluck_ledger.crawl import examine
from potluck_ledger.entries import Checkpoint, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.forks import prove
from potluck_ledger.journal import Journal, Record
from potluck_node.audit_desk import AuditDesk
from potluck_node.journal_sync import TELL_S, JournalSync
from potluck_node.lab import Lab
from potluck_node.lab_sync import LabSync, ask_accounts
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport

TOPIC = "/potluck/lab/journals/1"


class Node:
    def __init__(self, folder, key, network, admins):
        self.journal = Journal(folder / key.peer, key)
        self.transport = MemoryTransport(network, key.peer, lambda key, value: None)
        self.lab = Lab(folder / f"{key.peer}-lab", self.journal, "lab", frozenset(admins))
        self.sync = JournalSync(self.transport, self.journal, "lab", HandClock())
        self.lab_sync = LabSync(self.transport, self.journal, self.lab)
        self.offering: list[str] = []
        self.desk = AuditDesk(self.transport, self.sync, self.lab, lambda: self.offering)


@pytest.fixture
async def pair(tmp_path, nursery, autojump_clock, request):
    network = MemoryNetwork()
    made = [Node(tmp_path, key, network, request.param) for key in (CALLER, PROVIDER)]
    for node in made:
        await nursery.start(node.transport.serve)
        await nursery.start(node.sync.serve)
    await made[0].transport.connect(made[1].transport.addresses()[0])
    return made


LAB, NO_LAB = [CALLER.peer], []


@pytest.mark.parametrize("pair", [LAB], indirect=True)
async def test_journals_of_a_lab_come_page_by_page_and_hold(autojump_clock, pair):
    asker, asked = pair
    asked.journal.append_all([signed(number) for number in range(1, 302)], 1)
    await trio.sleep(2 * TELL_S)
    known = await asker.desk.answer(messages.AskJournals(1))
    ((peer, head),) = known.peers
    records = []
    while True:
        page = await asker.desk.answer(messages.AskPeerJournal(2, peer, len(records)))
        records += [Record(*pair) for pair in page.records]
        if not page.more:
            break
    shown = examine(PROVIDER.peer, records, head)
    assert (len(shown.entries), shown.problem, shown.findings) == (301, "", ())


def between_others(number):
    """Of a lease that the provider of the tests gave to somebody else."""
    return countersign(STRANGER, sign(PROVIDER, receipt(number, caller=STRANGER.peer))).encode()


@pytest.mark.parametrize("pair", [NO_LAB], indirect=True)
@pytest.mark.parametrize("is_admin", [False, True])
async def test_on_an_open_mesh_everybody_is_shown_what_is_about_them_and_an_admin_of_a_mesh_all(
    autojump_clock, pair, is_admin
):
    asker, asked = pair
    asked.lab_sync.is_admin = lambda peer: is_admin and peer == CALLER.peer
    asked.journal.append_all([signed(1), between_others(2), signed(3)], 1)
    await trio.sleep(2 * TELL_S)
    ((peer, head),) = (await asker.desk.answer(messages.AskJournals(1))).peers
    page = await asker.desk.answer(messages.AskPeerJournal(2, peer))
    shown = examine(peer, [Record(*each) for each in page.records], head)
    leases = [entry.receipt.lease for entry in shown.entries]
    assert leases == ["lease-1", *(["lease-2"] if is_admin else []), "lease-3"]
    assert (shown.problem, shown.hidden, shown.findings) == ("", 0 if is_admin else 1, ())


@pytest.mark.parametrize("pair", [NO_LAB], indirect=True)
async def test_nodes_of_a_lab_that_count_are_told_nothing_by_others(autojump_clock, pair):
    asker, asked = pair
    asked.journal.append(signed(1), 1)
    told = await ask_accounts(asker.transport, asked.journal.owner, AskAccounts(0, b""))
    assert told == AccountsTold()


@pytest.mark.parametrize("pair", [NO_LAB], indirect=True)
async def test_a_fork_that_an_audit_found_is_kept_and_told_to_all(autojump_clock, pair):
    asker, asked = pair
    convicted = []
    for node in pair:
        node.sync.convicted = convicted.append
    heads = [sign(STRANGER, Checkpoint(STRANGER.peer, 1, bytes([each]) * 32, 1, 0, 0)).encode() for each in (1, 2)]
    proof = prove(*heads).encode()
    assert await asker.desk.answer(messages.TellFork(7, proof)) == Done(7)
    await trio.sleep(1)
    assert convicted == [STRANGER.peer] * 2
    assert asker.journal.proofs() == asked.journal.proofs() == [proof]
    with pytest.raises(InvalidError, match="proves nothing"):
        await asker.desk.answer(messages.TellFork(8, proof[:-1]))


@pytest.mark.parametrize("pair", [LAB], indirect=True)
async def test_who_is_unknown_is_an_answer_and_who_keeps_two_is_not_asked(autojump_clock, pair):
    asker, asked = pair
    asked.journal.append(signed(1), 1)
    await trio.sleep(2 * TELL_S)
    assert len((await asker.desk.answer(messages.AskJournals(1))).peers) == 1
    answer = await asker.desk.answer(messages.AskPeerJournal(2, "nobody"))
    assert answer.problem.startswith("it does not answer: ")
    asker.offering = ["nobody"]
    known = await asker.desk.answer(messages.AskJournals(1))
    assert [peer for peer, _ in known.peers] == [PROVIDER.peer, "nobody"]
    asker.offering = [PROVIDER.peer]
    other = sign(PROVIDER, Checkpoint(PROVIDER.peer, 1, bytes(32), 1, 0, 0)).encode()
    await asked.transport.publish(TOPIC, wire.encode(gossip.HeadTold(other)))
    await trio.sleep(1)
    known = await asker.desk.answer(messages.AskJournals(1))
    assert (known.peers, len(known.proofs)) == ((), 1)
