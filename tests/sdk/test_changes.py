"""What a look at the node finds changed since the last one."""

from msgspec.structs import replace
from tests.tui.desk import a_call, a_peer, a_status, a_worker

from potluck.changes import changes


def kinds(before, now):
    return [change.kind for change in changes(before, now)]


def test_the_first_look_tells_what_there_is():
    now = a_status(workers=(a_worker(),), calls=(a_call(),), peers=(a_peer(),), warning="no limits here")
    found = kinds(None, now)
    assert found[0] == "up"
    assert {"warning", "used", "runs", "call", "peer"} <= set(found)


def test_nothing_new_is_nothing_said():
    now = a_status(workers=(a_worker(),), calls=(a_call(),), peers=(a_peer(),))
    assert kinds(now, replace(now, now_us=now.now_us + 1)) == []


def test_a_pause_and_its_end():
    lends, paused = a_status(paused=""), a_status(paused="owner returned")
    assert [change.text for change in changes(lends, paused)] == ["paused: owner returned"]
    assert kinds(paused, lends) == ["resumed"]
    assert all(change.is_important for change in changes(lends, paused))


def test_work_for_others_begins_and_ends():
    worker = a_worker(state="running")
    idle, busy = a_status(workers=(replace(worker, state="idle"),)), a_status(workers=(worker,))
    assert kinds(idle, busy) == ["used", "runs"]
    assert kinds(busy, idle) == ["done"]
    assert kinds(busy, a_status()) == ["ended"]


def test_peers_come_change_and_go():
    peer = a_peer(state="open")
    assert kinds(a_status(), a_status(peers=(peer,))) == ["peer"]
    (change,) = changes(a_status(peers=(peer,)), a_status(peers=(replace(peer, state="paused"),)))
    assert change.text == f"{peer.name} is paused"
    (gone,) = changes(a_status(peers=(peer,)), a_status())
    assert "is gone" in gone.text


def test_a_call_is_followed_to_its_end():
    call = a_call()
    assert kinds(a_status(), a_status(calls=(call,))) == ["call"]
    assert kinds(a_status(calls=(call,)), a_status(calls=(replace(call, inputs=call.inputs + 5),))) == ["progress"]
    assert kinds(a_status(calls=(call,)), a_status()) == ["returned"]


def test_after_a_restart_of_the_node_all_is_said_anew():
    now = a_status(peers=(a_peer(),))
    assert kinds(now, replace(now, started_us=now.started_us + 1)) == ["up", "peer"]
