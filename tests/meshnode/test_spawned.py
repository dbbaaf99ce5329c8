"""What of spawned calls is handed to the caller's core, recorded, and asked of programs that wait."""

from collections import namedtuple

import pytest
import trio
import trio.testing
from tests.meshnode.core.worlds import spec

from potluck.errors import NotFoundError
from potluck.wire import Failure
from potluck.wire import spawned as messages
from potluck.wire.common import Limit
from potluck.wire.verify import Canary, Verification
from potluck_ledger.keys import PrivateKey
from potluck_ledger.sealing import Vault
from potluck_node.clock import SystemClock
from potluck_node.core import events as ev
from potluck_node.errands import Errands
from potluck_node.spawned import SpawnedCalls
from potluck_node.spawned_store import SpawnedStore

RULE = Verification(2, 3, judged=True, canaries=(Canary(b"known", b"answer"),))
OUTER = (Limit("outer", lease_us=5), 1, 1)
Opened = namedtuple("Opened", "call verify spent under")


class Caller:
    """The caller's core, of which all events are kept."""

    def __init__(self):
        self.core = self.budgets = self
        self.opened, self.events, self.used = [], [], {}

    def open(self, call, function, sink, *, verify, spent, under):
        self.opened.append(Opened(call, verify, spent, under))

    def submit(self, event):
        self.events.append(event)

    def limits_of(self, asked, new):
        assert asked == ("lease", 5)
        assert len(new()) == 32
        return (OUTER,)

    def spent(self, call):
        return self.used


@pytest.fixture
def world(tmp_path):
    clock = SystemClock()
    store = SpawnedStore(tmp_path / "spawned.sqlite", Vault(PrivateKey(bytes(32))))
    caller = Caller()

    def node():
        """As after a start."""
        return SpawnedCalls(store, caller, clock, Errands(clock))

    yield node, caller
    store.close()


async def spawn(calls, verify=RULE, asked=None):
    question = messages.SpawnCall(1, spec(), (b"input",), verify=verify)
    return (await calls.answer(question, lambda message: None, asked)).call


def outcome(calls, call, timeout_us=-1, judges=True):
    return calls.answer(messages.AwaitOutcome(2, call, 0, timeout_us, judges), lambda message: None)


async def test_how_it_is_verified_and_under_which_limits_is_kept(world, nursery):
    node, caller = world
    call = await spawn(node(), asked=("lease", 5))
    assert caller.opened == [Opened(call, RULE, (0, 0), (OUTER,))]
    first = node()
    await nursery.start(first.serve)
    assert caller.opened[1:] == caller.opened[:1]
    caller.used = {"outer": (4, 4)}
    first.deliver(ev.Deliver(call, 0, payload=b"result"))
    assert (await outcome(first, call)).payload == b"result"
    assert first._store.under(call) == ((OUTER[0], 4, 4),)


async def test_who_waits_and_can_compares_results(world, nursery):
    node, caller = world
    calls = node()
    await nursery.start(calls.serve)
    call = await spawn(calls)
    found = []

    async def wait():
        found.append(await outcome(calls, call))

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        calls.judge(ev.AskJudge(call, 7, (b"input", b"one", b"other")))
    (asked,) = found
    assert asked.payloads == (b"input", b"one", b"other")
    # Who cannot compare is told nothing of it, and the result is still to come.
    assert await outcome(calls, call, 0, judges=False) == messages.SpawnedOutcome(2, 0)
    for agrees in (0, -1):
        await calls.answer(messages.SpawnedJudged(3, call, asked.number, agrees), lambda message: None)
    assert [each for each in caller.events if isinstance(each, ev.ResultsJudged)] == [ev.ResultsJudged(call, 7, 0)]
    calls.deliver(ev.Deliver(call, 0, failure=Failure("verification", "what")))
    assert (await outcome(calls, call)).failure.what == "what"


async def test_an_answer_to_what_nobody_asked_is_nothing(world):
    node, caller = world
    calls = node()
    call = await spawn(calls)
    await calls.answer(messages.SpawnedJudged(3, call, 1, 0), lambda message: None)
    assert not [each for each in caller.events if isinstance(each, ev.ResultsJudged)]
    with pytest.raises(NotFoundError):
        await calls.answer(messages.SpawnedJudged(3, "fc-none", 1, 0), lambda message: None)
