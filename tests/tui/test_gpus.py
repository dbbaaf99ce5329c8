"""The GPUs on the first screen: figures, graphs, who is on them; in words, and as they are seen."""

import msgspec
import pytest
from tests.tui.desk import NOW, a_gpu, a_peer, a_status, a_worker
from tests.tui.screen import on_screen, shown, until, until_shown

from potluck.wire.history import UNKNOWN, AskGpus, AskMachineHistory, GpuSpan, GpusTold, HistoryTold, Span
from potluck.wire.offer import GpuOffer
from potluck_tui.gpus import DAY_US, HOUR_US, day_graph, gpu_devices, today

OFFER = GpuOffer("GPU-0", "NVIDIA H100", 80 * 1024, 70 * 1024)
LENDS = a_status(gpus=(OFFER,), peers=(a_peer(),))
HOT = HistoryTold(
    1, NOW, tuple(Span(NOW - at * 300_000_000, 300, (GpuSpan("GPU-0", 1000),)) for at in range(287, 0, -1))
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.sock"


def told(*gpus, day=None):
    return GpusTold(1, NOW, gpus, day or Span(NOW, 86400))


def test_a_gpu_has_its_figures_and_who_is_on_it():
    (device,) = gpu_devices(LENDS, told(a_gpu()), HOT)
    assert device.cells == ("42 %", "61 °C", "100 W", "12.0/80 GiB", "██████▄", "bob: train")
    assert (device.used, device.total, device.words) == (420, 1000, "NVIDIA H100")


def test_the_first_who_runs_is_named_and_the_others_are_counted():
    gpu = a_gpu(users=(("12D3KooWBob", "idle"), ("12D3KooWAnn", "tr\x1b[2Jain")))
    idle = msgspec.structs.replace(gpu.users[0], state="idle")
    (device,) = gpu_devices(
        LENDS, told(a_gpu(users=()).__class__(gpu.reading, "m", 1, "leased", (idle, gpu.users[1]))), None
    )
    assert device.cells[-1] == "this machine: tr�[2Jain +1"


def test_what_a_driver_does_not_say_is_left_out():
    gpu = a_gpu(users=(), state="used by the owner", reading=GpuSpan("GPU-0", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN))
    (device,) = gpu_devices(LENDS, told(gpu), HOT)
    assert device.cells == ("", "", "", "", "██████ ", "used by the owner")
    assert device.used == 0


def test_a_day_is_as_wide_as_there_is_room_and_shows_when_nothing_was_seen():
    (device,) = gpu_devices(LENDS, told(a_gpu()), HOT)
    late = HistoryTold(1, NOW, HOT.spans[144:])
    assert day_graph(device, late, 10) == "     █████"
    assert len(day_graph(device, late, 60)) == 60
    assert DAY_US == 24 * HOUR_US


def test_what_was_earned_today():
    assert today(None) == today(told()) == ""
    assert today(told(day=Span(NOW, 86400, (), 3, 61_000_000, 0))) == "; today 1 min 01 s"
    assert today(told(day=Span(NOW, 86400, (), 3, 61_000_000, 5_000_000))) == "; today 5.0 s of GPUs"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_first_screen_shows_each_gpu_its_user_its_day_and_what_it_earned(path, size):
    async def check(_app, pilot, desk):
        desk.gpus, desk.spans = (a_gpu(),), HOT.spans
        desk.today = Span(NOW, 86400, (), 3, 61_000_000, 5_000_000)
        await until_shown(pilot, "devices", "bob: train")
        for figure in ("42 %", "61 °C", "100 W", "12.0/80 GiB", "███░░░░░"):
            assert figure in shown(pilot.app, "devices"), figure
        await until_shown(pilot, "devices", "24 h · NVIDIA H100")
        assert "█" * 40 in shown(pilot.app, "devices")
        await until_shown(pilot, "ledger", "today 5.0 s of GPUs")

    on_screen(path, check, LENDS, size)


def test_eight_gpus_that_are_read_fit_and_have_no_graphs(path):
    offers = tuple(msgspec.structs.replace(OFFER, uuid=f"GPU-{n}") for n in range(8))
    status = a_status(gpus=offers, workers=tuple(a_worker(f"ann-{n}") for n in range(8)), peers=(a_peer(),))

    async def check(app, pilot, desk):
        desk.gpus, desk.spans = tuple(a_gpu(f"GPU-{n}") for n in range(8)), HOT.spans
        await until_shown(pilot, "devices", "bob: train")
        body = app.query_one("#body")
        assert (body.max_scroll_x, body.max_scroll_y) == (0, 0)
        assert "24 h" not in shown(app, "devices")

    on_screen(path, check, status)


def test_a_machine_without_gpus_is_not_asked_again_and_again(path):
    async def check(_app, pilot, desk):
        await until(pilot, lambda: len(desk.asked) > 12, "some questions")
        assert sum(isinstance(each, AskGpus) for each in desk.asked) == 1
        assert not any(isinstance(each, AskMachineHistory) for each in desk.asked)

    on_screen(path, check)
