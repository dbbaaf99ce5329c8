"""A node whose data folder was copied signs two histories: it is found out, and nobody deals with it any more."""

import shutil

from tests.e2e import sample
from tests.e2e.mesh import Node, wait_until

from potluck_ledger.journal import Journal
from potluck_ledger.keys import load_or_create


class Forking(Node):
    module = "tests.e2e.forking_node"


def call(node, use_node, number):
    use_node(node)
    with sample.app.run(show_progress=False):
        assert sample.add.remote(number, 1) == number + 1


def entries(node):
    return node.status().entries


def test_who_signs_two_histories_is_convicted_by_all(mesh, use_node):
    caller = mesh.caller()
    ann, bob = mesh.provider("ann"), mesh.provider("bob")
    wait_until(lambda: len(caller.status().peers) == 2, "finding both providers")
    call(caller, use_node, 1)
    wait_until(lambda: entries(caller) == 1, "the first receipt")
    wait_until(lambda: any(entries(node) for node in (ann, bob)), "the provider's")
    caller.stop()
    clone = caller.home.with_name("clone")
    shutil.copytree(caller.home, clone, ignore=shutil.ignore_patterns("*.sock"))
    mesh.nodes.remove(caller)

    owner = load_or_create(clone / "node.key").peer
    for name in ("cas", "clone"):
        # One after the other, as when a backup is restored; and it does not heed what it hears of itself.
        node = Forking(mesh.folder, name, "--without-limits", "--no-offer", "--bootstrap", ann.address).start()
        try:
            wait_until(lambda node=node: len(node.status().peers) == 2, "finding the providers")
            call(node, use_node, 2 if name == "cas" else 3)
            wait_until(lambda node=node: entries(node) == 2, "the second receipt")
            if name == "cas":
                wait_until(lambda: follows(ann, owner, 2) and follows(bob, owner, 2), "its head being heard")
            else:
                wait_until(lambda: all(bans(each, owner) for each in (ann, bob)), "the proof")
        finally:
            node.stop()
    for provider in (ann, bob):
        provider.stop()
        with_proofs(provider)
        provider.start()
        assert bans(provider, owner)


def test_a_restored_backup_signs_nothing_and_is_not_convicted(mesh, use_node):
    caller = mesh.caller()
    ann = mesh.provider("ann")
    wait_until(lambda: caller.status().peers, "finding the provider")
    call(caller, use_node, 1)
    wait_until(lambda: entries(caller) == 1, "the first receipt")
    owner = caller.journal()[0]
    caller.stop()
    backup = caller.home.with_name("backup")
    shutil.copytree(caller.home, backup, ignore=shutil.ignore_patterns("*.sock"))

    caller.flags = ("--without-limits", "--no-offer", "--bootstrap", ann.address)
    caller.start()
    wait_until(lambda: caller.status().peers, "finding the provider again")
    call(caller, use_node, 2)
    wait_until(lambda: follows(ann, owner, 2), "its head being heard")
    caller.stop()
    shutil.rmtree(caller.home)
    shutil.copytree(backup, caller.home)

    caller.start()
    wait_until(lambda: "others know its entry 2, and here are 1" in caller.status().warning, "being told")
    assert not [peer for peer in caller.status().peers if peer.state == "open"]
    assert entries(caller) == 1
    assert not bans(ann, owner)


def bans(node, peer):
    return any(each.peer == peer and "two journals" in each.note for each in node.status().peers)


def follows(node, owner, count):
    return any(each.peer == owner and each.entries == count for each in node.status().peers)


def with_proofs(node):
    journal = Journal(node.home / "journal-2.sqlite", load_or_create(node.home / "node.key"))
    assert len(journal.proofs()) == 1
    journal.close()
