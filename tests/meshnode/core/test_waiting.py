from hypothesis import given
from hypothesis import strategies as st

from potluck_node.core.waiting import Waiting

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("wake"), st.sampled_from("ab"), st.integers(0, 3)),
    )
)


@given(STEPS)
def test_those_who_wait_longest_go_first_and_nobody_goes_twice(steps):
    waiting, model = Waiting(), {"a": [], "b": []}
    for what, place, number in steps:
        there = model[place]
        if what == "wait":
            waiting.wait(place, number)
            if number not in there:
                there.append(number)
        elif what == "leave":
            waiting.leave(place, number)
            if number in there:
                there.remove(number)
        else:
            assert waiting.wake(place, number) == there[:number]
            del there[:number]
    assert waiting.wake_all(lambda place: place == "a") == model["a"]
    assert waiting.wake_all(lambda place: True) == model["b"]
