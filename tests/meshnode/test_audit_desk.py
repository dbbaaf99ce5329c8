"""What a node tells those who audit its mesh: whose journals it knows, and what peers of a lab show."""

import pytest
import trio
from tests.ledger.test_journal import CALLER, PROVIDER, signed
from tests.meshnode.clocks import HandClock

from potluck import wire
from potluck.wire import audit as messages
from potluck.wire import journal as gossip
from potluck_ledger.crawl import examine
from potluck_ledger.entries import Checkpoint, sign
from potluck_ledger.journal import Journal, Record
from potluck_node.audit_desk import AuditDesk
from potluck_node.journal_sync import TELL_S, JournalSync
from potluck_node.lab import Lab
from potluck_node.lab_sync import LabSync
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


@pytest.mark.parametrize("pair", [NO_LAB], indirect=True)
async def test_who_belongs_to_no_lab_shows_nothing_and_that_is_said(autojump_clock, pair):
    asker, asked = pair
    asked.journal.append(signed(1), 1)
    await trio.sleep(2 * TELL_S)
    ((peer, head),) = (await asker.desk.answer(messages.AskJournals(1))).peers
    page = await asker.desk.answer(messages.AskPeerJournal(2, peer))
    assert "names no ledger_admins" in examine(peer, list(page.records), head).problem


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
