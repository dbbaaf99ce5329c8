"""What the screen says, without a screen."""

import msgspec
from tests.tui.desk import NOW, SECOND, a_call, a_peer, a_status, a_worker

from potluck.wire.control import AccountStatus
from potluck.wire.offer import GpuOffer
from potluck_tui.gpus import gpu_devices
from potluck_tui.model import make_view


def machine(**changes):
    return make_view(a_status(**changes)).machine


class TestMachine:
    def test_what_it_lends(self):
        assert machine().state == "lends"
        assert machine().sentence == "Lends 2 cores, 2.0 GiB, each caller in a sandbox (bwrap)."
        assert machine().about == "up 1 min · potluck 0.1.0"

    def test_why_it_is_paused_and_what_still_runs(self):
        seen = machine(paused="games", workers=(a_worker(), a_worker("ann-2"), a_worker("ann-3", "idle")))
        assert seen.state == "paused"
        assert seen.sentence == "Paused: no new work, 2 inputs still running. Reason: “games”."
        assert machine(paused="games").sentence == "Paused: no new work. Reason: “games”."

    def test_a_machine_that_only_calls(self):
        view = make_view(a_status(offering=False, cpu_milli=0, memory_mib=0))
        assert view.machine.state == "calls"
        assert view.devices == ()
        assert view.workers.empty == "This machine runs nothing for others."


class TestDevices:
    def test_cores_and_memory_in_use(self):
        cpu, memory = make_view(a_status(cpu_free_milli=500, memory_free_mib=1536)).devices
        assert (cpu.used, cpu.total, cpu.words) == (1500, 2000, "1.5 of 2 in use")
        assert (memory.used, memory.total, memory.words) == (512, 2048, "512 MiB of 2.0 GiB in use")

    def test_gpus(self):
        gpu = GpuOffer("GPU-1", "NVIDIA A10G", memory_mib=24576, memory_free_mib=8192, state="in use by its owner")
        status = a_status(gpus=(gpu,))
        (device,) = gpu_devices(status, None, None)
        assert device.name == "GPU 0"
        assert device.words == "NVIDIA A10G, in use by its owner, 16.0 GiB of 24.0 GiB in use"
        assert "1 GPU" in make_view(status).machine.sentence


class TestWorkers:
    def test_who_runs_what_for_whom_and_since_when(self):
        (row,) = make_view(a_status(workers=(a_worker(),), peers=(a_peer(),))).workers.rows
        assert row == ("ann-1", "train", "for bob", "running", "for 12 s")

    def test_running_ones_first_and_unused_ones_last(self):
        workers = (a_worker("a", "idle"), a_worker("b", "starting", since_us=0), a_worker("c"))
        rows = make_view(a_status(workers=workers)).workers.rows
        assert [(row[0], row[3], row[4]) for row in rows] == [
            ("c", "running", "for 12 s"),
            ("b", "starting", ""),
            ("a", "ready, unused", "for 12 s"),
        ]

    def test_this_machine_and_strangers_without_a_name(self):
        workers = (a_worker("a", caller="12D3KooWAnn"), a_worker("b", caller="12D3KooWabcdefgh"))
        assert [row[2] for row in make_view(a_status(workers=workers)).workers.rows] == [
            "for this machine",
            "for abcdefgh",
        ]

    def test_a_peer_cannot_pass_for_another_by_its_name(self):
        peers = (
            a_peer("bob", "12D3KooWaaaaaaaa"),
            a_peer("bob", "12D3KooWbbbbbbbb"),
            a_peer("ann", "12D3KooWcccccccc"),
        )
        names = {row[0] for row in make_view(a_status(peers=peers)).peers.rows}
        assert names == {"bob aaaaaaaa", "bob bbbbbbbb", "ann cccccccc"}

    def test_nobody(self):
        assert make_view(a_status()).workers.empty == "Nobody uses this machine now."


class TestCalls:
    def test_progress_and_what_is_waited_for(self):
        (row,) = make_view(a_status(calls=(a_call(note="waiting for 1 A10G"),))).calls.rows
        assert row == ("train", "12 of 30 done", "", "waiting for 1 A10G")

    def test_rate_since_the_earlier_status(self):
        before = a_status(calls=(a_call(waiting=23),), now_us=NOW - 2 * SECOND)
        (row,) = make_view(a_status(calls=(a_call(waiting=18),)), before).calls.rows
        assert row[2] == "2.5/s"

    def test_no_rate_without_progress_time_or_the_same_call(self):
        now = a_status(calls=(a_call(),))
        for before in (
            now,
            msgspec.structs.replace(now, now_us=NOW - SECOND),
            a_status(calls=(a_call(call="other"),), now_us=NOW - SECOND),
        ):
            assert make_view(now, before).calls.rows[0][2] == ""


class TestPeers:
    def test_state_and_what_is_lent(self):
        peers = (a_peer(gpus=("A10G", "A10G"), rtt_us=400, note="slow"),)
        (row,) = make_view(a_status(peers=peers)).peers.rows
        assert row == ("bob", "2 free", "4 cores, 8.0 GiB, 2× A10G", "0.4 ms away · slow")

    def test_usable_ones_first(self):
        peers = (
            a_peer("dan", "d", connected=False),
            a_peer("cat", "c", state="paused"),
            a_peer("bob", "b", slots_free=0),
        )
        rows = make_view(a_status(peers=peers)).peers.rows
        assert [row[:2] for row in rows] == [("bob", "busy"), ("cat", "paused"), ("dan", "not connected")]

    def test_one_that_lends_nothing_says_why(self):
        peer = a_peer("eve", "e", "unused", cpu_milli=0, memory_mib=0, note="its clock is 4 h ahead")
        (row,) = make_view(a_status(peers=(peer,))).peers.rows
        assert row == ("eve", "unused", "its clock is 4 h ahead", "")


class TestLedger:
    def test_sums_over_all_peers(self):
        accounts = (
            AccountStatus("b", 90 * SECOND, 0, 12, 0),
            AccountStatus("c", 30 * SECOND, 20 * SECOND, 3, 1),
        )
        assert make_view(a_status(accounts=accounts, entries=5)).ledger == (
            ("Given", "2 min 00 s", "15 inputs run for others"),
            ("Used", "20.0 s", "1 input run by others"),
            ("Balance", "+1 min 40 s", "gave more than it used; 5 receipts"),
        )

    def test_debt_and_nothing(self):
        owed = make_view(a_status(accounts=(AccountStatus("b", 0, 20 * SECOND, 0, 1),), entries=1)).ledger
        assert owed[2] == ("Balance", "−20.0 s", "used more than it gave; 1 receipt")
        assert make_view(a_status()).ledger[2] == ("Balance", "0 s", "even; 0 receipts")
