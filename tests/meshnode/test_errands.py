"""Errands between clients and workers: delivered once, to those who may, and never waited for in vain."""

import pytest
import trio
import trio.testing
from tests.meshnode.clocks import HandClock

from potluck import errors
from potluck.wire import errands as messages
from potluck_node.errands import Errands
from potluck_node.state.work import Asker

CLIENT = Asker("client 1")
WORKER = Asker("lease 1", "app", trusted=False)
SERVICE = messages.Service("secret", "name", (("a", "b"),))


@pytest.fixture
def errands():
    made = Errands(HandClock())
    made.check("app", SERVICE)
    made.open("call", "app", SERVICE)
    return made


async def refused(kind, errands, request, asker):
    with pytest.raises(kind):
        await errands.ask(request, asker)


async def test_an_errand_goes_to_the_worker_and_its_report_comes_back(errands):
    async with trio.open_nursery() as nursery:
        answers = []

        async def send(payload):
            answers.append((payload, (await errands.ask(messages.Send("call", payload), CLIENT)).payload))

        for payload in (b"1", b"2"):
            nursery.start_soon(send, payload)
        await trio.testing.wait_all_tasks_blocked()
        await errands.ask(messages.Begin("secret"), WORKER)
        for _ in range(2):
            errand = await errands.ask(messages.Attend("secret"), WORKER)
            await errands.ask(messages.Report("secret", errand.number, errand.payload * 2), WORKER)
    assert sorted(answers) == [(b"1", b"11"), (b"2", b"22")]


async def test_only_one_worker_begins_and_only_once(errands):
    await refused(errors.RefusedError, errands, messages.Attend("secret"), WORKER)
    await errands.ask(messages.Begin("secret"), WORKER)
    for asker in (WORKER, Asker("lease 2", "app")):
        await refused(errors.RefusedError, errands, messages.Begin("secret"), asker)
    await refused(errors.RefusedError, errands, messages.Attend("secret"), Asker("lease 2", "app"))
    await refused(errors.RefusedError, errands, messages.Report("secret", 1, b""), Asker("lease 2", "app"))
    await refused(errors.RefusedError, errands, messages.Begin("guessed"), WORKER)


async def test_a_worker_that_is_not_trusted_sends_no_errands_and_gets_no_secrets(errands):
    for request in (messages.Send("call", b""), messages.ListServices(), messages.SetTags("call", ())):
        await refused(errors.RefusedError, errands, request, WORKER)
    await errands.ask(messages.Begin("secret"), WORKER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, errors.RefusedError, errands, messages.Send("call", b"x", secret=True), CLIENT)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await errands.ask(messages.Attend("secret"), WORKER)


async def test_the_end_of_the_call_is_told_to_all_who_wait(errands):
    await errands.ask(messages.Begin("secret"), WORKER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, errors.NotFoundError, errands, messages.Send("call", b""), CLIENT)
        await trio.testing.wait_all_tasks_blocked()
        assert (await errands.ask(messages.Attend("secret"), WORKER)).payload == b""
        nursery.start_soon(refused, errors.RefusedError, errands, messages.Attend("secret"), WORKER)
        await trio.testing.wait_all_tasks_blocked()
        errands.close("call")
    await refused(errors.NotFoundError, errands, messages.Send("call", b""), CLIENT)
    assert (await errands.ask(messages.ListServices(), CLIENT)).services == ()


async def test_what_nobody_waits_for_is_not_handed_out(errands):
    await errands.ask(messages.Begin("secret"), WORKER)
    with trio.move_on_after(0):
        await errands.ask(messages.Send("call", b"left"), CLIENT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(errands.ask, messages.Attend("secret"), WORKER)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await errands.ask(messages.Report("secret", 1, b"late"), WORKER)


async def test_a_lease_that_ends_loses_its_call(errands):
    lost = []
    errands.lost = lost.append
    errands.left(WORKER.name)
    assert lost == []
    await errands.ask(messages.Begin("secret"), WORKER)
    errands.left(WORKER.name)
    assert lost == ["call"]


async def test_names_and_tags(errands):
    with pytest.raises(errors.AlreadyExistsError):
        errands.check("app", messages.Service("other", "name"))
    errands.check("another app", messages.Service("other", "name"))
    with pytest.raises(errors.InvalidError):
        errands.check("app", messages.Service("secret"))
    with pytest.raises(errors.InvalidError):
        errands.check("app", messages.Service("other", "", (("a", "b" * 300),)))
    found = (await errands.ask(messages.ListServices("app", (("a", "b"),)), CLIENT)).services
    assert [(each.call, each.name) for each in found] == [("call", "name")]
    await errands.ask(messages.SetTags("call", (("c", "d"),)), CLIENT)
    assert not (await errands.ask(messages.ListServices("app", (("a", "b"),)), CLIENT)).services


async def test_limits(errands):
    await refused(errors.InvalidError, errands, messages.Send("call", bytes(messages.ERRAND_BYTES_MAX + 1)), CLIENT)
    async with trio.open_nursery() as nursery:
        for _ in range(messages.ERRANDS_MAX):
            nursery.start_soon(errands.ask, messages.Send("call", b""), CLIENT)
        await trio.testing.wait_all_tasks_blocked()
        await refused(errors.RefusedError, errands, messages.Send("call", b""), CLIENT)
        nursery.cancel_scope.cancel()
    for number in range(messages.SERVICES_MAX - 1):
        errands.open(f"call {number}", "app", messages.Service(f"token {number}"))
    with pytest.raises(errors.RefusedError, match="run already"):
        errands.check("app", messages.Service("one too many"))
