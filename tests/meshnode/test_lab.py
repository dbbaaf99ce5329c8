"""A lab's books over a transport: all count the same use, whoever shows it, and nonsense of a peer changes nothing."""

import msgspec
import pytest
import trio
from tests.ledger.test_journal import receipt
from tests.ledger.test_quotas import ADMIN, ANN, BOB, GPU, NOW_US, S, grant, member
from tests.meshnode.clocks import HandClock
from tests.meshnode.core.worlds import spec

from potluck import wire
from potluck.errors import InvalidError, RefusedError
from potluck.wire import accounts as messages
from potluck.wire.control import Done
from potluck_ledger.entries import Voucher, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.journal import Journal, JournalError
from potluck_ledger.usage import What
from potluck_node.lab import Lab
from potluck_node.lab_sync import ACCOUNTS_PROTOCOL, ASK_S, LabSync
from potluck_node.quota_desk import QuotaDesk
from potluck_node.quota_gate import QuotaGate
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport

CPU_ONLY = What("train", "")
SPEC = msgspec.structs.replace(spec(), app="train")


def clock():
    made = HandClock()
    made.advance(NOW_US + 60 * S - made.now_us())
    return made


class Node:
    """One node's part of it."""

    def __init__(self, folder, key, network, admins=(ADMIN.peer,)):
        self.key, self.clock, self.path = key, clock(), folder / f"{key.peer}-lab"
        self.journal = Journal(folder / key.peer, key)
        self.lab = Lab(self.path, self.journal, "lab", frozenset(admins))
        self.transport = MemoryTransport(network, key.peer, lambda key, value: None)
        self.sync = LabSync(self.transport, self.journal, self.lab)
        self.desk = QuotaDesk(self.lab, key, "lab", self.clock)
        self.gate = QuotaGate(self.lab, self.journal, self.clock, key.peer[-4:], 0, lambda: ())
        self.sync.running = self.gate.running

    def gave(self, caller, seconds, number=1):
        made = receipt(
            number, caller=caller.peer, provider=self.key.peer, lease_us=seconds * S, busy_us=0, label="train.f",
            started_us=NOW_US - 9, ended_us=NOW_US,
        )  # fmt: skip
        self.journal.append(countersign(caller, sign(self.key, made)).encode(), number)

    def left(self, who=ANN):
        self.lab.catch_up()
        return self.lab.quotas.left_us(who.peer, CPU_ONLY, self.clock.now_us()) / S


@pytest.fixture
async def nodes(tmp_path, nursery, autojump_clock):
    """The admin's node and two providers of its lab."""
    network = MemoryNetwork()
    made = [Node(tmp_path, key, network) for key in (ADMIN, GPU, BOB)]
    for node in made:
        await nursery.start(node.transport.serve)
        await nursery.start(node.sync.serve)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        await made[one].transport.connect(made[other].transport.addresses()[0])
    return made


async def told():
    await trio.sleep(3 * ASK_S)


def grants(node, seconds=100, scope="user", name=ANN.peer):
    expires_us = NOW_US + 10**12
    assert node.desk.answer(messages.GrantTime(7, scope, name, "", seconds * S, 0, expires_us)) == Done(7)


async def test_use_on_one_machine_counts_on_all(autojump_clock, nodes):
    admin, gpu, bob = nodes
    grants(admin)
    gpu.gave(ANN, 30)
    bob.gave(ANN, 20)
    await told()
    assert [node.left() for node in nodes] == [50, 50, 50]
    gpu.gave(ANN, 60, 2)
    await told()
    assert [node.left() for node in nodes] == [-10, -10, -10]
    assert gpu.gate.opens("lease", ANN.peer, SPEC).reason == "quota"
    (line,) = gpu.desk.answer(messages.AskQuotas(1)).lines
    assert (line.name, line.used_us, line.is_mine) == (ANN.peer, 110 * S, False)


async def test_grants_are_known_after_a_restart_without_their_admin(autojump_clock, nodes):
    admin, gpu, _ = nodes
    grants(admin, scope="group", name="students")
    admin.desk.answer(messages.SetMember(1, "students", ANN.peer, NOW_US + 10**12))
    admin.gave(ANN, 25)
    await told()
    again = Lab(gpu.path, gpu.journal, "lab", frozenset([ADMIN.peer]))
    assert again.quotas.left_us(ANN.peer, CPU_ONLY, gpu.clock.now_us()) == 75 * S
    assert again.rules_digest() == gpu.lab.rules_digest() == admin.lab.rules_digest()
    again.close()


def say(node, what, name=ANN.peer, machine="", **fields):
    told = {"level": 100, "cpu_milli": 2**53 - 1, "gpus": 2**53 - 1, "starts_us": 0, "expires_us": NOW_US + 10**12}
    rule = messages.SetRule(7, what, "user", name, machine, **(told | fields))
    assert node.desk.answer(rule) == Done(7)


async def test_rules_reach_all_and_hold_on_the_machine_that_is_meant(autojump_clock, nodes):
    admin, gpu, bob = nodes
    grants(admin)
    grants(admin, name=admin.key.peer)
    await told()
    assert gpu.gate.opens("l1", ANN.peer, SPEC) is None
    say(admin, "reserve", admin.key.peer, machine=gpu.key.peer)
    say(admin, "priority", level=103)
    say(admin, "limit", cpu_milli=2000)
    await told()
    # What runs ends with its next voucher, nothing new begins, and elsewhere all is as before.
    refused = gpu.gate.used("l1", 5 * S)
    assert (refused.reason, gpu.gate.opens("l2", ANN.peer, SPEC).reason) == ("reserved", "reserved")
    assert "is reserved for the user" in refused.failure.what
    assert gpu.gate.opens("l3", admin.key.peer, SPEC) is None
    assert bob.gate.opens("l4", ANN.peer, SPEC) is None
    assert bob.gate.share(ANN.peer) < bob.gate.share(admin.key.peer)
    assert [(cap.callers, cap.cpu_milli) for cap in bob.gate.caps(ANN.peer)] == [({ANN.peer}, 2000)]
    assert bob.gate.caps(admin.key.peer) == []
    lines = bob.desk.answer(messages.AskQuotas(1)).rules
    assert {line.what for line in lines} == {"reserve", "priority", "limit"}
    with pytest.raises(RefusedError):
        say(bob, "priority", level=200)


async def test_a_lease_ends_when_what_runs_here_and_elsewhere_is_too_much(autojump_clock, nodes):
    admin, gpu, bob = nodes
    grants(admin)
    await told()
    for number, node in enumerate((gpu, bob)):
        assert node.gate.opens(f"l{number}", ANN.peer, SPEC) is None
        voucher = Voucher(f"l{number}", ANN.peer, node.key.peer, 1, 45 * S, NOW_US)
        node.journal.hold(countersign(ANN, sign(node.key, voucher)).encode())
        assert node.gate.used(f"l{number}", 45 * S) is None
    await told()
    assert gpu.left() == 10
    assert gpu.gate.used("l0", 55 * S) is None
    refused = gpu.gate.used("l0", 56 * S)
    assert "101.0 of 100.0 s used" in refused.failure.why
    assert "potluck ledger quota" in refused.failure.fix
    gpu.gate.closed("l0")
    assert gpu.left() == 55


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense",
        wire.encode(messages.AccountsTold(((b"x", b"y"),))),
        wire.encode(messages.AccountsTold(running=(messages.RunningLease(b"x", "", ""),), rules=(b"x",))),
        wire.encode(messages.AccountsTold(rules=(sign(BOB, grant(seconds=9, admin=BOB.peer)).encode(),))),
    ],
)
async def test_what_a_peer_makes_up_changes_nothing(autojump_clock, nodes, answer):
    admin, gpu, bob = nodes
    grants(admin)

    async def lie(stream):
        await stream.receive()
        await stream.send(answer)

    bob.transport.handle(ACCOUNTS_PROTOCOL, lie)
    gpu.gave(ANN, 30)
    await told()
    assert admin.left() == 70
    assert len(admin.lab.rules()) == 1


async def test_a_peer_cannot_show_a_part_of_its_journal_as_the_whole(autojump_clock, nodes):
    _, gpu, bob = nodes
    for number in (1, 2):
        bob.gave(ANN, 10, number)
    _, second = bob.journal.records()
    with pytest.raises(JournalError):
        gpu.lab.take(BOB.peer, [second])


def test_a_node_without_admins_tells_and_refuses_nothing(tmp_path):
    outside = Node(tmp_path, ANN, MemoryNetwork(), admins=())
    outside.gave(BOB, 10)
    assert outside.sync._told(messages.AskAccounts(0, b""), "somebody") == messages.AccountsTold()
    assert outside.gate.opens("lease", BOB.peer, SPEC) is None
    assert outside.gate.share(BOB.peer) == 0
    with pytest.raises(RefusedError, match="no lab"):
        outside.desk.answer(messages.AskQuotas(1))


async def test_only_admins_grant_and_only_what_can_be_signed(autojump_clock, nodes):
    admin, gpu, _ = nodes
    with pytest.raises(RefusedError, match="grant nothing"):
        grants(gpu)
    with pytest.raises(InvalidError):
        grants(admin, name="x" * 600)
    grants(admin, 5)
    grants(admin, 7)
    assert admin.left() == 7
    grants(admin, 0)
    assert admin.left() == 0


def test_the_owner_of_a_node_comes_first(tmp_path):
    node = Node(tmp_path, GPU, MemoryNetwork())
    assert node.gate.opens("lease", GPU.peer, SPEC) is None
    assert node.gate.share(GPU.peer) < 0 < node.gate.share(ANN.peer)
    refused = node.gate.opens("lease", ANN.peer, SPEC)
    assert "no admin" in refused.failure.what
    assert member(ANN).group == "students"
