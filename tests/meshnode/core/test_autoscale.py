"""How many workers, and where."""

from hypothesis import given
from hypothesis import strategies as st

from potluck.wire import Scaling
from potluck_node.core.autoscale import Demand, Place, allot, kept, wanted

S = 1_000_000


def demand(queued=0, running=0, run_us=0, start_us=S, gap_us=0, **more):
    return Demand(queued, running, run_us, start_us, gap_us, **more)


def test_what_is_not_known_yet_gets_a_worker_for_each_input():
    assert wanted(demand(queued=7), Scaling()) == 7
    assert wanted(demand(queued=7, per_worker=3), Scaling()) == 3


def test_a_worker_that_would_start_longer_than_it_works_is_not_started():
    assert wanted(demand(queued=1000, run_us=1000, up=1), Scaling()) == 1
    assert wanted(demand(queued=1000, run_us=10_000, up=1), Scaling()) == 10
    assert wanted(demand(queued=1000, run_us=60 * S, up=1), Scaling()) == 1000


def test_a_steady_stream_is_counted_on():
    """Little's law: 20 a second that take half a second each are 10 in service."""
    assert wanted(demand(queued=12, running=1, run_us=S // 2, start_us=60 * S, gap_us=S // 20, up=1), Scaling()) == 10


def test_where_nothing_moves_the_figures_are_not_believed():
    assert wanted(demand(queued=3, running=1, run_us=1000, up=1, stalled_us=S), Scaling()) == 4


def test_limits_hold():
    assert wanted(demand(queued=100), Scaling(max_containers=4)) == 4
    assert wanted(demand(), Scaling(min_containers=2)) == 2
    assert wanted(demand(), Scaling(buffer_containers=2)) == 0
    assert wanted(demand(running=1), Scaling(buffer_containers=2)) == 3
    assert wanted(demand(running=1), Scaling(buffer_containers=2, max_containers=2)) == 2


def test_what_is_held_up_without_work():
    assert kept(demand(), Scaling()) == 0
    assert kept(demand(), Scaling(min_containers=2)) == 2
    assert kept(demand(running=3), Scaling(buffer_containers=2)) == 5
    assert kept(demand(running=3, per_worker=3), Scaling(min_containers=2, buffer_containers=1)) == 2
    assert kept(demand(), Scaling(buffer_containers=2)) == 0


def test_workers_stay_where_they_are_busy_and_then_go_to_the_nearest():
    places = [Place("far", 4, 1, 9), Place("near", 2, 0, 1), Place("middle", 4, 0, 5)]
    assert allot(1, places) == {"far": 1, "near": 0, "middle": 0}
    assert allot(4, places) == {"far": 4, "near": 0, "middle": 0}
    assert allot(7, places) == {"far": 4, "near": 2, "middle": 1}
    assert allot(99, places) == {"far": 4, "near": 2, "middle": 4}


figures = st.integers(0, 10**9)


@given(
    st.builds(
        Demand, *[st.integers(0, 10**5)] * 2, *[figures] * 3, per_worker=st.integers(1, 1000), up=st.integers(0, 10**4)
    ),
    st.builds(Scaling, *[st.integers(0, 100)] * 3),
)
def test_it_never_wants_more_than_one_for_each_input_or_less_than_it_must(found, scaling):
    number = wanted(found, scaling)
    most = max(scaling.min_containers, found.total + scaling.buffer_containers)
    assert number <= (min(most, scaling.max_containers) if scaling.max_containers else most)
    assert number >= min(1, found.total)
    assert kept(found, scaling) <= max(number, kept(found, scaling))
    if scaling.max_containers:
        assert kept(found, scaling) <= scaling.max_containers


@given(st.integers(0, 50), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=9))
def test_all_workers_are_allotted_as_far_as_there_is_room(workers, rooms):
    places = [Place(str(number), room, busy, rank) for number, (room, busy, rank) in enumerate(rooms)]
    found = allot(workers, places)
    assert sum(found.values()) == min(workers, sum(place.room for place in places))
    assert all(0 <= found[place.lease] <= place.room for place in places)
