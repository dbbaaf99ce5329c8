"""What a worker may ask its caller's node to call, and when that ends."""

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from tests.meshnode.core.worlds import spec

from potluck import wire
from potluck.errors import InvalidError
from potluck.runner import plain
from potluck.wire import Failure
from potluck.wire import nested as messages
from potluck.wire.apps import MethodFacts, NamedFunction
from potluck.wire.common import Limit
from potluck_node.apps import ClientApps
from potluck_node.core import events as ev
from potluck_node.named import WANTS_MAX, Named
from potluck_node.nested import Nested

OUTER = replace(spec(), app="mine")
INNER = replace(OUTER, name="inner", qualname="inner")
THING = replace(OUTER, name="Thing", qualname="Thing", parameters=b"\x90")
ONE, TWO = ClientApps(7, 1), ClientApps(8, 2)
DATA = plain.dumps(((), {}))


class Place:
    """The caller's core, of which all events are kept."""

    def __init__(self):
        self.opened, self.events, self.inputs, self.limits = {}, [], {}, {}
        self.nursery = None

    def open(self, call, function, sink, limit, asked):
        self.opened[call] = (function, sink)
        self.limits[call] = limit, asked

    def submit(self, event):
        self.events.append(event)

    def runs(self, lease, number):
        return self.inputs.get((lease, number))

    def show(self, call, index, message):
        raise AssertionError

    def start(self, task, *arguments):
        self.nursery.start_soon(task, *arguments)

    def all(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class World:
    def __init__(self, function=OUTER, trusted=False):
        self.place, self.told, self.clients = Place(), {}, []
        self.named = Named(lambda: self.clients, lambda: [], self.deployed)
        self.named.add(ONE, "mine", [NamedFunction("outer", OUTER), NamedFunction("inner", INNER)])
        self.named.add(ONE, "mine", [NamedFunction("Thing", THING, (MethodFacts("get"),))])
        self.nested = Nested(self.place, self.named, None)
        self.desk = self.nested.desk("l1", function, trusted, self.tell)
        self.place.inputs["l1", 5] = ("1.1", 0)

    def deployed(self, app):
        return [NamedFunction("secret", replace(INNER, app="other"))] if app == "other" else []

    def tell(self, number, payload, failure):
        self.told[number] = failure or wire.decode(payload, messages.NestedAnswer)

    def ask(self, number, request, input=5):
        self.desk.ask(number, input, wire.encode(request))
        return self.told.get(number)

    def call(self, number, name="inner", payload=DATA, **callee):
        return self.ask(number, messages.CallOnce(messages.Callee("mine", name, **callee), payload))

    @property
    def last(self):
        return list(self.place.opened)[-1]

    def deliver(self, call, index=0, payload=b"result"):
        self.place.opened[call][1].deliver(ev.Deliver(call, index, payload=payload))


def test_one_input_and_its_outcome():
    world = World()
    assert world.call(1) is None
    function, _ = world.place.opened[world.last]
    assert function == INNER
    assert world.place.all(ev.InputAdded) == [ev.InputAdded(world.last, 0, DATA)]
    world.deliver(world.last)
    assert world.told[1] == messages.NestedOutcome(0, b"result")
    world.desk.input_over(5)
    assert not world.place.all(ev.CallCancelled)


def test_a_call_has_the_limit_that_it_was_given_and_counts_for_the_input_that_asked():
    world, limit = World(), Limit("", lease_us=5)
    callee = messages.Callee("mine", "inner")
    world.ask(1, messages.CallOnce(callee, DATA, limit))
    assert world.place.limits[world.last] == (limit, ("l1", 5))
    world.ask(2, messages.AddInputs(0, (DATA,), callee=callee, limit=limit), input=0)
    assert world.place.limits[world.last] == (limit, ("l1", 0))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (messages.CallOnce(messages.Callee("mine", "none"), DATA), "nothing named none"),
        (messages.CallOnce(messages.Callee("other", "secret"), DATA), "nothing named secret"),
        (messages.CallOnce(messages.Callee("other", "secret", found=True), DATA), "may not call functions of other"),
        (messages.CallOnce(messages.Callee("mine", "inner"), b"\x80\x05."), "a pickle"),
        (messages.CallOnce(messages.Callee("mine", "Thing"), DATA), "is a class"),
        (messages.CallOnce(messages.Callee("mine", "inner", b"\x90"), DATA), "is a function"),
        (messages.AddInputs(7, (DATA,)), "no such call"),
        (messages.TakeSome(7), "no such call"),
        (messages.AskCallee(messages.Callee("other", "secret", found=True)), "may not call"),
    ],
)
def test_what_a_stranger_may_not_ask_is_refused_and_leaves_nothing(request_, why):
    world = World()
    failure = world.ask(1, request_)
    assert isinstance(failure, Failure)
    assert why in failure.what
    assert len(world.place.opened) == len(world.place.all(ev.CallCancelled))
    assert not world.place.all(ev.InputAdded)
    assert not world.nested.chains


def test_what_is_no_request_is_refused():
    world = World()
    world.desk.ask(1, 5, b"\xc1 nonsense")
    assert isinstance(world.told[1], Failure)


def test_the_owners_own_peers_may_call_what_is_deployed_and_send_pickles():
    world = World(trusted=True)
    callee = messages.Callee("other", "secret", found=True)
    assert world.ask(1, messages.CallOnce(callee, b"\x80\x05.")) is None
    assert world.place.opened[world.last][0].app == "other"
    assert not world.ask(2, messages.AskCallee(callee)).generator


def test_a_map_is_added_to_and_its_outcomes_are_taken_together():
    world = World()
    opened = world.ask(1, messages.AddInputs(0, (DATA, DATA), callee=messages.Callee("mine", "inner")))
    assert world.ask(2, messages.TakeSome(opened.call)) is None
    world.deliver(world.last, 1, b"one")
    assert world.told[2].outcomes == (messages.NestedOutcome(1, b"one"),)
    world.ask(3, messages.AddInputs(opened.call, (DATA,), last=True))
    assert world.place.all(ev.InputsEnded)
    world.deliver(world.last, 0, b"nought")
    world.deliver(world.last, 2, b"two")
    assert [each.payload for each in world.ask(4, messages.TakeSome(opened.call)).outcomes] == [b"nought", b"two"]
    assert "no such call" in world.ask(5, messages.TakeSome(opened.call)).what
    assert not world.nested.chains


def test_items_come_before_the_outcome_and_are_acknowledged():
    world = World()
    opened = world.ask(1, messages.AddInputs(0, (DATA,), True, messages.Callee("mine", "inner")))
    sink = world.place.opened[world.last][1]
    sink.item(ev.DeliverItem(world.last, 0, 0, b"a"))
    sink.item(ev.DeliverItem(world.last, 0, 1, b"b"))
    assert world.ask(2, messages.TakeItems(opened.call, 0)).items == (b"a", b"b")
    assert world.ask(3, messages.TakeItems(opened.call, 2)) is None
    assert world.place.all(ev.ItemsTaken) == [ev.ItemsTaken(world.last, 0, 2)]
    world.deliver(world.last, payload=b"")
    assert world.told[3] == messages.Some((), (messages.NestedOutcome(0, b""),))


def test_calls_end_with_the_input_that_made_them_with_the_lease_and_when_nobody_waits():
    world = World()
    world.place.inputs["l1", 6] = ("1.2", 0)
    for number, input in ((1, 5), (2, 6), (3, 6)):
        world.ask(number, messages.CallOnce(messages.Callee("mine", "inner"), DATA), input)
    first, second, third = world.place.opened
    world.desk.input_over(5)
    assert [event.call for event in world.place.all(ev.CallCancelled)] == [first]
    world.desk.leave(2)
    world.desk.leave(2)
    assert [event.call for event in world.place.all(ev.CallCancelled)] == [first, second]
    world.desk.close()
    assert [event.call for event in world.place.all(ev.CallCancelled)] == [first, second, third]
    assert not world.told
    assert not world.nested.chains


def test_each_level_of_a_recursion_has_a_function_of_its_own_and_there_is_an_end():
    world, desk = World(), None
    for level in range(1, messages.DEPTH_MAX + 1):
        assert world.call(level, "outer") is None
        function = world.place.opened[world.last][0]
        assert function.level == level
        desk = world.nested.desk(f"deeper {level}", function, False, world.tell)
        world.place.inputs[f"deeper {level}", 5] = (world.last, 0)
        world.desk = desk
    assert f"{messages.DEPTH_MAX} calls wait" in world.call(100, "outer").what
    world.place.inputs.clear()
    assert f"{messages.DEPTH_MAX} calls wait" in world.call(101, "outer").what, "whose input is not said"


def test_there_is_a_limit_to_open_calls_and_to_their_inputs():
    world = World()
    many = (DATA,) * (messages.INPUTS_MAX + 1)
    assert "more than" in world.ask(1, messages.AddInputs(0, many, callee=messages.Callee("mine", "inner"))).what
    for number in range(messages.CALLS_MAX):
        assert world.call(2 + number) is None
    assert "are open" in world.call(5000).what


def test_names_are_those_of_the_program_whose_function_asks():
    named = Named(lambda: [ONE, TWO], lambda: [], lambda app: [NamedFunction("inner", replace(INNER, image="de" * 32))])
    other = replace(OUTER, pickled=b"another program's", qualname="")
    named.add(ONE, "mine", [NamedFunction("outer", OUTER), NamedFunction("inner", INNER)])
    named.add(TWO, "mine", [NamedFunction("outer", other), NamedFunction("inner", replace(INNER, image="0e" * 32))])
    assert named.own(OUTER, "mine", "inner").spec == INNER
    assert named.own(other, "mine", "inner").spec.image == "0e" * 32
    assert named.own(replace(OUTER, timeout_us=1), "mine", "inner").spec == INNER, "with other settings"
    assert named.own(replace(OUTER, image="3d" * 32), "mine", "inner").spec.image == "de" * 32
    assert named.own(OUTER, "mine", "missing") is None


def test_names_are_kept_while_spawned_calls_of_the_app_go_on():
    alive, spawned = [ONE], ["mine"]
    named = Named(lambda: alive, lambda: spawned, lambda app: [])
    named.add(ONE, "mine", [NamedFunction("outer", OUTER), NamedFunction("inner", INNER)])
    alive.clear()
    named.add(TWO, "second", [NamedFunction("outer", OUTER)])
    assert named.own(OUTER, "mine", "inner")
    spawned.clear()
    named.add(ClientApps(9, 3), "third", [NamedFunction("outer", OUTER)])
    assert named.own(OUTER, "mine", "inner") is None
    with pytest.raises(InvalidError):
        named.add(ClientApps(9, 3), "third", [NamedFunction("bad", replace(OUTER, timeout_us=0))])


async def test_a_function_that_only_the_program_knows_is_asked_for():
    world, wanted = World(), []
    late = ClientApps(7, 1, lambda app, name: wanted.append((app, name)))
    other = ClientApps(8, 2, lambda app, name: wanted.append("another program"))
    world.clients += [late, ClientApps(7, 3, late.want), other]
    async with trio.open_nursery() as world.place.nursery:
        world.call(1, "late")
        world.call(2, "late")
        world.call(3, "never")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(set(wanted)) == [("mine", "late"), ("mine", "never")]
        assert len(wanted) == 4, "each name once, of each connection: whoever reads first sees to it"
        world.desk.leave(2)
        failure = Failure.of(InvalidError("It cannot be built."))
        world.named.add(late, "mine", [NamedFunction("late", replace(INNER, name="late"))], [("never", failure)])
    assert world.place.opened[world.last][0].name == "late"
    assert len(world.place.opened) == 1
    assert world.told[3] == failure


async def test_a_program_that_leaves_is_waited_for_no_longer(autojump_clock):
    world = World()
    world.clients.append(ONE)
    async with trio.open_nursery() as world.place.nursery:
        world.call(1, "late")
        await trio.testing.wait_all_tasks_blocked()
        world.clients.clear()
    assert "nothing named late" in world.told[1].what


async def test_a_program_is_asked_for_so_many_names_at_once(autojump_clock):
    world, wanted = World(), []
    client = ClientApps(7, 1, lambda app, name: wanted.append(name))
    world.clients.append(client)
    async with trio.open_nursery() as world.place.nursery:
        for number in range(WANTS_MAX + 1):
            world.call(number, f"late {number}")
        await trio.testing.wait_all_tasks_blocked()
        assert len(wanted) == WANTS_MAX
        assert [failure.kind for failure in world.told.values()] == ["refused"]
        failure = Failure.of(InvalidError("It cannot be built."))
        world.named.add(client, "mine", (), [(name, failure) for name in wanted])
    async with trio.open_nursery() as world.place.nursery:
        world.call(1000, wanted[0])
    assert world.told[1000] == failure
    assert len(wanted) == WANTS_MAX, "what failed just now is not tried again"
