"""The history of a machine's GPUs, with the provider's own core, watch and journal, on devices played by hand."""

import pytest
from tests.ledger.test_journal import PROVIDER, signed
from tests.meshnode.clocks import HandClock
from tests.meshnode.test_lend import provider

from potluck.wire.history import UNKNOWN, AskGpus, AskMachineHistory, GpuSpan, Span
from potluck_ledger.journal import Journal
from potluck_node.core.history import KEPT_S
from potluck_node.devices.interface import Device
from potluck_node.history import DAY_US, HistoryDesk, HistoryFile

SECOND = 1_000_000
MINUTE = 60 * SECOND
ONE = Device("GPU-1", "0", "nvidia", "NVIDIA A10G", 23028, 22028, temperature_c=40, power_mw=30_000, load_milli=250)


@pytest.fixture
def clock():
    made = HandClock()
    # Noon, so that minutes do not fall on two days.
    made.advance(DAY_US - made.now_us() % DAY_US + DAY_US // 2)
    return made


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal.sqlite", PROVIDER)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path):
    return HistoryFile(tmp_path / "history.jsonl")


async def desk_of(file, journal, clock, *devices):
    node = await provider(*devices)
    desk = HistoryDesk(file, node, journal, clock)
    node.gpus.on_look = desk.seen
    return node, desk


async def test_minutes_are_kept_and_told_with_what_the_ledger_says(file, journal, clock):
    node, desk = await desk_of(file, journal, clock, ONE)
    with node.lend(("A10G",)):
        await node.gpus.look()
        clock.advance(5 * SECOND)
        await node.gpus.look()
    journal.append(signed(1, gpu="GPU-1"), clock.now_us())
    clock.advance(MINUTE)
    await node.gpus.look()
    told = await desk.answer(AskMachineHistory(3))
    assert told.question == 3
    first, second = told.spans
    assert first.gpus == (GpuSpan("GPU-1", 250, 1000, 40, 30_000, 1000),)
    assert (first.inputs, first.given_us, first.gpu_us) == (3, 5_000, 5_000)
    assert second.gpus[0].lent_milli == 0
    assert told.models == {"GPU-1": "NVIDIA A10G"}
    assert file.read() == [first]
    assert file._path.stat().st_mode & 0o777 == 0o600


async def test_what_was_kept_survives_a_restart_and_counts_for_today(file, journal, clock, tmp_path):
    node, desk = await desk_of(file, journal, clock, ONE)
    journal.append(signed(1), clock.now_us())
    await node.gpus.look()
    clock.advance(MINUTE)
    await node.gpus.look()
    with (tmp_path / "history.jsonl").open("ab") as half:
        half.write(b"\n[17000000")
    node, desk = await desk_of(file, journal, clock, ONE)
    journal.append(signed(2), clock.now_us())
    told = await desk.answer(AskGpus(1))
    assert (told.today.inputs, told.today.given_us) == (6, 10_000)
    clock.advance(MINUTE)
    await node.gpus.look()
    assert sum(span.inputs for span in file.read()) == 6
    clock.advance(DAY_US)
    assert (await desk.answer(AskGpus(2))).today.inputs == 0
    assert sum(span.inputs for span in (await desk.answer(AskMachineHistory(3))).spans) == 6


async def test_gpus_are_looked_at_for_a_client_at_most_once_a_second(file, journal, clock, monkeypatch):
    node, desk = await desk_of(file, journal, clock, ONE)
    looks = []
    look = node.gpus.look

    async def counted():
        looks.append(1)
        await look()

    monkeypatch.setattr(node.gpus, "look", counted)
    told = [await desk.answer(AskGpus(number)) for number in range(5)]
    assert len(looks) == 1
    (gpu,) = told[-1].gpus
    assert (gpu.model, gpu.memory_mib, gpu.state, gpu.users) == ("NVIDIA A10G", 23028, "free", ())
    assert gpu.reading == GpuSpan("GPU-1", 250, 1000, 40, 30_000)


async def test_a_driver_that_says_nothing_and_a_gpu_that_is_broken_have_no_figures(file, journal, clock):
    silent = Device("GPU-1", "0", "nvidia", "NVIDIA A10G", 23028, 23028)
    broken = Device("GPU-2", "1", "nvidia", "NVIDIA A10G", 23028, fault="has fallen off the bus", load_milli=500)
    _, desk = await desk_of(file, journal, clock, silent, broken)
    first, second = (await desk.answer(AskGpus(1))).gpus
    assert first.reading == GpuSpan("GPU-1", UNKNOWN, 0, UNKNOWN, UNKNOWN)
    assert second.reading == GpuSpan("GPU-2")
    assert second.state == "has fallen off the bus"


async def test_a_machine_without_gpus_that_does_nothing_writes_nothing(file, journal, clock, tmp_path):
    node, desk = await desk_of(file, journal, clock)
    for _ in range(5):
        await node.gpus.look()
        clock.advance(MINUTE)
    assert not (tmp_path / "history.jsonl").exists()
    assert (await desk.answer(AskMachineHistory(1))).spans == ()
    lends_nothing = HistoryDesk(file, None, journal, clock)
    assert (await lends_nothing.answer(AskGpus(1))).gpus == ()


async def test_a_disk_that_refuses_is_said_once_and_nothing_else_fails(tmp_path, journal, clock, caplog):
    node, desk = await desk_of(HistoryFile(tmp_path / "none" / "history.jsonl"), journal, clock, ONE)
    for _ in range(4):
        await node.gpus.look()
        clock.advance(MINUTE)
    assert caplog.text.count("the history of the GPUs is not kept") == 1
    assert len((await desk.answer(AskMachineHistory(1))).spans) == 1


def test_the_file_stays_within_its_bound(tmp_path):
    path = tmp_path / "history.jsonl"
    file = HistoryFile(path, bytes_max=20_000)
    for minute in range(2_000):
        file.append(Span(minute * MINUTE, 60, (GpuSpan("GPU-1", minute % 1000),), 1))
        assert path.stat().st_size <= 20_000
    spans = file.read()
    assert spans[-1].at_us == 1_999 * MINUTE
    assert sum(span.step_s for span in spans) > 12 * 3600
    file.tidy((KEPT_S + 3_000 * 60) * SECOND)
    assert file.read() == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["history.jsonl"]
