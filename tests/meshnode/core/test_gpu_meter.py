"""What leases used of GPUs, from samples played by hand. Times in microseconds."""

from hypothesis import given
from hypothesis import strategies as st

from potluck_node.core.gpu_meter import GAP_MAX_US, GpuMeters, GpuSample, ProcessUse, by_worker
from potluck_node.core.gpus import Gpu, Hold

S = 1_000_000
ONE, TWO = Gpu("GPU-1", "NVIDIA A10G", 23028), Gpu("GPU-2", "NVIDIA A10G", 23028)


class Machine:
    def __init__(self, *workers, gpus=(ONE,), share_mib=0):
        self.meters = GpuMeters()
        self.energy = 1_000_000
        for worker in workers or ("w",):
            self.meters.start(worker, Hold(gpus, share_mib))

    def look(self, at_us, mj=0, uuid="GPU-1", **values):
        self.energy += mj
        self.meters.sampled(GpuSample(uuid, at_us, **({"energy_mj": self.energy} | values)))

    def run(self, worker, lease, start_us, end_us):
        self.meters.occupy(worker, lease, start_us)
        self.meters.vacate(worker, lease, end_us)


def test_a_lease_gets_what_happened_while_it_occupied_the_worker():
    machine = Machine()
    machine.look(0)
    machine.run("w", "l", 1 * S, 3 * S)
    machine.look(4 * S, mj=400, workers={"w": 500})
    use = machine.meters.close("l")
    assert (use.occupied_us, use.busy_us, use.energy_mj) == (2 * S, 1 * S, 200)
    assert use.method() == "wall; busy: processes; energy: counter"
    assert use.quality() == "provider's word, 100% sampled"
    assert list(use.gpus) == ["GPU-1"]


def test_an_input_that_still_runs_is_counted_so_far_and_goes_on():
    machine = Machine()
    machine.meters.occupy("w", "l", 0)
    machine.look(0)
    machine.look(1 * S, workers={"w": 1000})
    machine.meters.vacate("w", "l", 1 * S + 500_000)
    use = machine.meters.close("l")
    assert use.busy_us == 1 * S
    machine.look(2 * S, workers={"w": 200})
    assert use.busy_us == 1 * S + 100_000


def test_warm_waiting_between_leases_is_nobodys():
    machine = Machine()
    machine.look(0)
    machine.run("w", "a", 0, 1 * S)
    machine.run("w", "b", 3 * S, 4 * S)
    machine.look(4 * S, mj=400, workers={"w": 1000})
    assert [machine.meters.close(name).energy_mj for name in "ab"] == [100, 100]


def test_a_worker_that_dies_is_metered_until_then_and_its_successor_from_then():
    machine = Machine()
    machine.look(0)
    machine.run("w", "l", 0, 1 * S)
    machine.meters.end("w")
    machine.look(1 * S, workers={"w": 800})
    machine.meters.start("v", Hold((ONE,)))
    machine.run("v", "l", 2 * S, 3 * S)
    machine.look(3 * S, workers={"v": 500})
    assert machine.meters.close("l").busy_us == 800_000 + 500_000


def test_several_workers_on_one_gpu_share_its_energy_by_what_they_did():
    machine = Machine("a", "b", share_mib=4096)
    machine.look(0)
    machine.run("a", "la", 0, 1 * S)
    machine.run("b", "lb", 0, 1 * S)
    machine.look(1 * S, mj=400, workers={"a": 600, "b": 200}, device_milli=800)
    uses = [machine.meters.close(name) for name in ("la", "lb")]
    assert [(use.busy_us, use.energy_mj) for use in uses] == [(600_000, 300), (200_000, 100)]
    assert "GPU shared" in uses[0].quality()


def test_two_gpus_of_one_worker_count_their_mean_so_that_busy_never_exceeds_lease():
    machine = Machine(gpus=(ONE, TWO))
    machine.look(0)
    machine.look(0, uuid="GPU-2")
    machine.run("w", "l", 0, 1 * S)
    machine.look(1 * S, mj=100, workers={"w": 1000})
    machine.look(1 * S, mj=100, uuid="GPU-2", workers={"w": 500})
    use = machine.meters.close("l")
    assert use.busy_us == 750_000
    assert sorted(use.gpus) == ["GPU-1", "GPU-2"]


def test_without_process_figures_the_whole_gpu_counts_only_if_it_is_held_alone():
    alone, together = Machine(), Machine("w", "v", share_mib=4096)
    for machine in (alone, together):
        machine.look(0)
        machine.run("w", "l", 0, 1 * S)
        machine.look(1 * S, device_milli=400)
    assert alone.meters.close("l").method().startswith("wall; busy: device")
    use = together.meters.close("l")
    assert (use.busy_us, use.method()) == (0, "wall; busy: none; energy: counter")
    assert "0% sampled" in use.quality()


def test_what_the_owner_does_is_not_taken_for_the_workers():
    machine = Machine()
    machine.look(0)
    machine.run("w", "l", 0, 1 * S)
    machine.look(1 * S, workers={}, device_milli=900, others=True)
    use = machine.meters.close("l")
    assert use.busy_us == 0
    assert use.quality().endswith("others on it")


def test_a_slice_that_reports_nothing_says_so():
    machine = Machine()
    machine.look(0, energy_mj=None)
    machine.run("w", "l", 0, 1 * S)
    machine.look(1 * S, energy_mj=None)
    use = machine.meters.close("l")
    assert use.method() == "wall; busy: none; energy: none"
    assert (use.busy_us, use.energy_mj) == (0, 0)


def test_a_counter_that_was_reset_is_replaced_by_power_for_that_stretch():
    machine = Machine()
    machine.look(0, power_mw=100_000)
    machine.run("w", "l", 0, 3 * S)
    machine.look(1 * S, mj=-900_000, power_mw=200_000, workers={"w": 0})
    assert machine.meters.close("l").energy_mj == 150_000


def test_rates_after_a_long_silence_are_not_believed_but_the_counter_is():
    machine = Machine()
    machine.look(0)
    machine.run("w", "l", 0, 2 * GAP_MAX_US)
    machine.look(2 * GAP_MAX_US, mj=500, workers={"w": 1000})
    use = machine.meters.close("l")
    assert (use.busy_us, use.energy_mj) == (0, 500)
    assert "0% sampled" in use.quality()


def test_what_a_lost_gpu_did_last_stays_unmeasured():
    machine = Machine()
    machine.look(0)
    machine.meters.occupy("w", "l", 0)
    machine.look(1 * S, workers={"w": 1000})
    machine.meters.vacate("w", "l", 2 * S)
    use = machine.meters.close("l")
    assert use.busy_us == 1 * S
    assert "50% sampled" in use.quality()


def test_a_process_that_took_over_a_number_answers_only_for_itself():
    owners = {7: ("w", 5 * S)}
    assert by_worker([ProcessUse(7, 900, 4 * S)], owners) == {}
    assert by_worker([ProcessUse(7, 900, 6 * S), ProcessUse(8, 500, 6 * S)], owners) == {"w": 900}
    assert by_worker([ProcessUse(7, 900, 6 * S), ProcessUse(7, 900, 6 * S)], owners) == {"w": 1000}


spells = st.lists(st.tuples(st.integers(0, S), st.integers(1, S)), min_size=1, max_size=20)
samples = st.lists(st.tuples(st.integers(1, 3 * S), st.integers(0, 1000), st.integers(0, 10**6)), max_size=40)


@given(spells, samples)
def test_busy_is_never_more_than_the_lease_and_energy_never_more_than_the_counter(runs, looks):
    machine = Machine()
    events, at_us = [], 0
    for gap_us, run_us in runs:
        events += [(at_us + gap_us, "occupy", 0, 0), (at_us + gap_us + run_us, "vacate", 0, 0)]
        at_us += gap_us + run_us
    at_us = 0
    for gap_us, milli, mj in looks:
        at_us += gap_us
        events.append((at_us, "look", milli, mj))
    machine.look(0)
    for now_us, what, milli, mj in sorted(events, key=lambda event: event[0]):
        if what == "look":
            machine.look(now_us, mj=mj, workers={"w": milli})
        elif what == "occupy":
            machine.meters.occupy("w", "l", now_us)
        else:
            machine.meters.vacate("w", "l", now_us)
    use = machine.meters.close("l")
    assert use.occupied_us == sum(run_us for _, run_us in runs)
    assert use.busy_us <= use.occupied_us + 1
    assert use.energy_mj <= sum(mj for *_, mj in looks) * (1 + 1e-9)
