"""How a version takes over: whatever happens in whatever order, exactly one is in charge in the end."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from potluck.wire import FunctionSpec, Scaling, function_id
from potluck.wire.apps import NamedFunction, ParameterFacts
from potluck_node.core import rollover
from potluck_node.core.rollover import WARM_US_MAX, Cold, GiveUp, Recorded, Retire, Rollover, Superseded, TakeOver, Tick
from potluck_node.core.rollover import Warm as IsWarm

NAMES = ("a", "b", "c")
EVENTS = st.one_of(
    st.builds(IsWarm, st.sampled_from((*NAMES, "other"))),
    st.builds(Cold, st.sampled_from((*NAMES, "other")), st.just("it broke")),
    st.builds(Recorded, st.booleans()),
    st.just(Superseded()),
    st.just(Tick()),
)


@given(st.sets(st.sampled_from(NAMES)), st.lists(st.tuples(EVENTS, st.integers(0, WARM_US_MAX // 3)), max_size=30))
def test_it_takes_over_once_all_are_warm_or_never(needs, events):
    core, now_us, warm, actions = Rollover(needs, 0), 0, set(), []
    for event, later_us in [*events, (Tick(), WARM_US_MAX), (Recorded(True), 0)]:
        now_us += later_us
        if isinstance(event, IsWarm) and not core.ended:
            warm.add(event.function)
        came = core.handle(event, now_us)
        if TakeOver() in came:
            assert needs <= warm
            assert now_us <= WARM_US_MAX or needs <= warm
        actions += came
    assert core.ended
    assert core.wake_us is None
    assert actions.count(TakeOver()) <= 1
    ends = [each for each in actions if not isinstance(each, TakeOver)]
    assert len(ends) == 1
    assert isinstance(ends[0], GiveUp) or actions == [TakeOver(), Retire()]


def test_what_is_recorded_decides():
    core = Rollover((), 0)
    assert core.handle(Tick(), 0) == [TakeOver()]
    assert core.handle(Cold("a", "too late"), 1) == []
    assert core.handle(Recorded(False), 2) == [GiveUp("another version was deployed meanwhile")]


SPEC = FunctionSpec("app", "f", "1" * 64, "3.11", module="m", qualname="f")
OLD, NEW = NamedFunction("f", SPEC), NamedFunction("f", replace(SPEC, image="2" * 64))


def test_what_nobody_uses_needs_no_worker():
    assert rollover.needed([OLD], [NEW], [], []) == {}


def test_what_is_used_does():
    wanted = {function_id(NEW.spec): NEW.spec}
    assert rollover.needed([OLD], [NEW], [SPEC], []) == wanted
    assert rollover.needed([OLD], [NEW], [], [function_id(SPEC)]) == wanted


def test_what_is_wanted_always_but_has_no_worker_does_not():
    """Else nothing could be deployed while no machine is there."""
    kept = replace(OLD, spec=replace(SPEC, scaling=Scaling(min_containers=1)))
    assert rollover.needed([kept], [NEW], [], []) == {}


def test_what_is_the_same_keeps_its_workers():
    assert rollover.needed([OLD], [OLD], [SPEC], [function_id(SPEC)]) == {}
    assert rollover.needed([OLD], [], [SPEC], []) == {}


def test_objects_are_made_anew_with_the_parameters_that_they_have():
    facts = (ParameterFacts("size", "int"),)
    old, new = replace(OLD, parameters=facts), replace(NEW, parameters=facts)
    used = replace(SPEC, parameters=b"3", secrets=(("KEY", "x"),), scaling=Scaling(max_containers=2))
    found = rollover.needed([old], [new], [used, replace(used, name="g")], [])
    assert [each.parameters for each in found.values()] == [b"3"]
    assert rollover.needed([old], [NEW], [used], []) == {}
