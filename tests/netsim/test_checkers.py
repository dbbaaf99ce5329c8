"""Each checker finds what it is for when a core is broken on purpose, and tells the seed and the story."""

import dataclasses
from functools import partial

import msgspec
import pytest
from click.testing import CliRunner
from tests.netsim.broken import first_broken

from potluck_ledger.balance import Accounts
from potluck_ledger.vouchers import ProviderVouchers
from potluck_netsim import network, provider
from potluck_netsim.__main__ import main
from potluck_netsim.checkers import HonestVouchers
from potluck_netsim.facts import GpusChanged, Used
from potluck_netsim.faults import Faults
from potluck_netsim.liars import Strangers
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.shrink import Shrinker, replay
from potluck_netsim.world import STANDSTILL_EVENTS, PromiseBroken, World
from potluck_node.core import events as ev
from potluck_node.core.bans import Bans
from potluck_node.core.calls import CallCore
from potluck_node.core.hiring import Hiring
from potluck_node.core.offers import OfferBook
from potluck_node.core.provider import ProviderCore
from potluck_node.core.room import Room
from potluck_node.core.staff import Staff

MILD = Faults(deaths_per_hour=0, freezes_per_hour=0, pauses_per_hour=0, cancelled_milli=300)


def broken(promise, faults=MILD, seed=5):
    """Try seeds until a promise breaks; returns how it is told."""
    text = first_broken(lambda seed: Lab(Options(seed, nodes=6, minutes=2, faults=faults)), range(seed, seed + 20))
    assert f"Broken promise: {promise}" in text
    assert "--seed" in text
    assert " node-0" in text.partition("did last:\n")[2]
    return text


def test_an_unbroken_core_keeps_its_promises():
    assert Lab(Options(5, nodes=6, minutes=2, faults=MILD)).run().calls_ended > 10


def test_a_call_whose_lost_leases_are_ignored_never_ends(monkeypatch):
    monkeypatch.setattr(CallCore, "_lease_lost", lambda core, event, now_us: None)
    # It would run what hangs on the dead a second time.
    monkeypatch.setattr(Hiring, "_tail", lambda hiring, function, now_us: None)
    deadly = dataclasses.replace(MILD, deaths_per_hour=120)
    assert "still waits for its inputs" in broken("every call ends", deadly, seed=2)


def test_a_lost_outcome_is_found_in_the_receipt(monkeypatch):
    outcomes = []

    def take(end, data):
        if b"InputDone" in data:
            outcomes.append(data)
        if b"InputDone" not in data or len(outcomes) != 5:
            deliver(end, data)

    deliver = network._take
    monkeypatch.setattr(network, "_take", take)
    assert "were reported input by input" in broken("an honest receipt is accepted")


def test_a_call_that_ends_too_early_is_found(monkeypatch):
    def finish(core, name, now_us):
        if core._calls[name].ended:
            core._calls[name].waiting.clear()
        honest(core, name, now_us)

    honest = CallCore._finish_call
    monkeypatch.setattr(CallCore, "_finish_call", finish)
    assert "ended without an outcome" in broken("every call ends")


def test_a_result_delivered_twice_is_found(monkeypatch):
    def deliver(core, item, action, now_us):
        honest(core, item, action, now_us)
        core._actions.append(action)

    honest = CallCore._deliver
    monkeypatch.setattr(CallCore, "_deliver", deliver)
    assert "was delivered again" in broken("every result is delivered exactly once")


def test_a_result_for_a_cancelled_call_is_found(monkeypatch):
    monkeypatch.setattr(CallCore, "_call_cancelled", lambda core, event, now_us: None)
    assert "although the call was cancelled" in broken("every result is delivered exactly once")


def test_another_inputs_result_is_found(monkeypatch):
    def settle(core, function, item, done, now_us):
        honest(core, function, item, msgspec.structs.replace(done, payload=b"result of something else"), now_us)

    honest = CallCore._settle
    monkeypatch.setattr(CallCore, "_settle", settle)
    assert "not its own" in broken("every result is delivered exactly once")


def test_more_workers_than_lent_are_found(monkeypatch):
    monkeypatch.setattr(Room, "fits", lambda room, spec: True)
    assert "are lent" in broken("a node never runs more workers than it lends")


def test_a_padded_bill_is_found(monkeypatch):
    def pad(**figures):
        return msgspec.structs.replace(honest(**figures), lease_us=2 * figures["meter"].run_us)

    honest = provider.write_receipt
    monkeypatch.setattr(provider, "write_receipt", pad)
    assert "are billed" in broken("an honest receipt is accepted")


def test_a_padded_run_time_is_found(monkeypatch):
    def finish(core, item, cpu_us, done, now_us):
        honest(core, item, cpu_us, msgspec.structs.replace(done, run_us=done.run_us + 2_000_000), now_us)

    honest = ProviderCore._finish
    monkeypatch.setattr(ProviderCore, "_finish", finish)
    # Who asks for vouchers tells by them first.
    monkeypatch.setattr(HonestVouchers, "see", lambda checker, fact, world: None)
    assert "are claimed" in broken("an honest receipt is accepted")


def test_a_padded_voucher_is_found(monkeypatch):
    def reckon(vouchers, used_us, now_us):
        return honest(vouchers, used_us + 10_000_000, now_us)

    honest = ProviderVouchers.reckon
    monkeypatch.setattr(ProviderVouchers, "reckon", reckon)
    assert "passed here" in broken("an honest voucher is accepted")


def test_a_spinning_core_is_found(monkeypatch):
    def plan(core, now_us):
        core.wake_us = now_us + 1000

    monkeypatch.setattr(Hiring, "_plan_wake", plan)
    assert "times in a second" in broken("a node that waits stays calm")


def test_a_worker_that_is_never_let_go_is_found(monkeypatch):
    monkeypatch.setattr(provider, "IDLE_US", 3600 * 1_000_000)
    assert "still has worker" in broken("a quiet node is empty")


def test_a_broken_promise_ends_the_command_with_one(monkeypatch):
    monkeypatch.setattr(Room, "fits", lambda room, spec: True)
    shown = CliRunner().invoke(main, ["lab", "--seed", "5", "--nodes", "6", "--minutes", "2"])
    assert shown.exit_code == 1
    assert "replay: --seed 5" in shown.output


def test_things_at_the_same_time_happen_in_the_order_in_which_they_were_planned():
    world, seen = World(1), []
    for name in "abc":
        world.after(5, partial(seen.append, name))
    world.after(1, partial(seen.append, "first"))
    world.run(world.now_us + 5)
    assert seen == ["first", "a", "b", "c"]


def test_a_world_that_stands_still_is_found():
    world = World(9)

    def again():
        world.after(0, again)

    world.tell("node-00", "greets itself")
    world.after(0, again)
    with pytest.raises(PromiseBroken, match="time moves on") as caught:
        world.run(world.now_us + 1)
    assert "node-00 greets itself" in str(caught.value)
    assert world.events == STANDSTILL_EVENTS + 1


def test_an_event_is_told_in_a_line_with_what_matters_of_it():
    lines = []
    world = World(1, lines.append)
    world.after(61_000_005, lambda: world.tell("node-00", "hears", ev.LeaseAccepted("lease-1", 4)))
    world.run(world.now_us + 61_000_005)
    assert lines == ["01:01.000005 node-00 hears LeaseAccepted lease-1 4"]


def test_a_second_that_is_counted_twice_is_found(monkeypatch):
    def count(accounts, account, us, *, gave):
        honest(accounts, account, 2 * us, gave=gave)

    honest = Accounts._count
    monkeypatch.setattr(Accounts, "_count", count)
    with pytest.raises(PromiseBroken, match="every second that is billed was used"):
        Lab(Options(5, nodes=6, minutes=2, faults=MILD)).run()


def test_a_worker_with_two_things_at_a_time_is_found():
    lab = Lab(Options(5, nodes=2, minutes=1))
    one, other = lab.nodes
    lab.world.fact(Used(one.name, other.peer, "worker", ("gpu0",), lab.world.now_us - 5))
    with pytest.raises(PromiseBroken, match="two things at a time"):
        lab.world.fact(Used(one.name, other.peer, "another", ("gpu0",), lab.world.now_us - 1))


def test_a_gpu_that_is_leased_twice_is_found():
    lab = Lab(Options(5, nodes=2, minutes=1))
    lab.world.fact(GpusChanged("node-00", ("gpu0", "gpu1")))
    with pytest.raises(PromiseBroken, match="a GPU is never leased twice"):
        lab.world.fact(GpusChanged("node-00", ("gpu0", "gpu0")))


def test_an_offer_that_has_run_out_is_found(monkeypatch):
    monkeypatch.setattr(OfferBook, "fresh", lambda book, now_us: iter(list(book.offers.values())))
    silent = dataclasses.replace(MILD, deaths_per_hour=120, silent_milli=1000)
    assert "whose offer ended" in broken("an offer that is used is fresh", silent)


def test_a_ban_without_end_is_found(monkeypatch):
    monkeypatch.setattr(Bans, "left_us", lambda bans, peer, now_us: 10**9 * (peer in bans._bans))
    deadly = dataclasses.replace(MILD, deaths_per_hour=60)
    assert "does nothing with" in broken("no honest node is banned for good", deadly)


def test_a_secret_at_a_stranger_is_found(monkeypatch):
    monkeypatch.setattr(Hiring, "secrets", lambda hiring, peer: True)
    text = first_broken(lambda seed: Strangers(Options(seed, nodes=6, minutes=2, faults=MILD)), range(20))
    assert "no secret reaches a peer that is not trusted" in text


def test_too_many_sandboxes_are_found(monkeypatch):
    monkeypatch.setattr(Staff, "may_pool", lambda staff, caller, spec: True)
    monkeypatch.setattr(Staff, "_make_pool_room", lambda staff: None)
    text = first_broken(lambda seed: Lab(Options(seed, nodes=16, minutes=4, faults=MILD)), range(20))
    assert "what a node holds stays within its limits" in text


def test_the_shortest_replay_breaks_the_same_promise(monkeypatch):
    monkeypatch.setattr(Room, "fits", lambda room, spec: True)
    options = Options(5, nodes=12, minutes=4, faults=MILD)
    with pytest.raises(PromiseBroken) as caught:
        Lab(options).run()
    shrinker = Shrinker(Lab, options, caught.value)
    shortest = shrinker.shrink()
    assert shortest.promise == caught.value.promise
    assert (shrinker.options.nodes, shrinker.options.minutes) < (6, 2)
    assert shrinker.options.faults.straggler_milli == 0
    said = replay("lab", shrinker.options).split()[3:]
    shown = CliRunner().invoke(main, [*said, "--no-shrink"])
    assert shown.exit_code == 1
    assert shown.output.strip() == str(shortest)


def test_a_report_is_drawn(tmp_path):
    shown = CliRunner().invoke(main, ["parted", "--seed", "1", "--nodes", "6", "--png", str(tmp_path / "parted.png")])
    assert shown.exit_code == 0, shown.output
    assert "calls are served" in shown.output
    assert (tmp_path / "parted.png").read_bytes().startswith(b"\x89PNG")
