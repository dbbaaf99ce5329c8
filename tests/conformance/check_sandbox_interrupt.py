"""How a worker is told that it will be ended, in every sandbox, as `check_sandbox`."""

from __future__ import annotations

import sys
import time

import cloudpickle
from tests.conformance.check_sandbox import Opener, call, inside_double, one_worker, outcome_of, post

from potluck.wire.worker import InputRaised, WorkerLog

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def inside_until_told() -> str:
    notice = sys.modules["potluck_runner.notice"]
    while not notice.told:
        time.sleep(0.01)
    return "told"


def inside_save() -> None:
    try:
        print("begun", flush=True)
        time.sleep(1000)
    except KeyboardInterrupt:
        raise KeyError("saved") from None


async def check_interrupt(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        await post(worker, inside_until_told)
        await worker.interrupt()
        assert (await outcome_of(worker)).value == "told"
        await post(worker, inside_save, number=2)
        while not isinstance(await worker.receive(), WorkerLog):
            pass
        await worker.interrupt(last=True)
        raised = (await outcome_of(worker)).message
        assert isinstance(raised, InputRaised)
        assert raised.exception.type_name == "KeyError"
        # One that does nothing takes no harm.
        await worker.interrupt(last=True)
        assert (await call(worker, inside_double, 3)).value == 6


CHECKS = [check_interrupt]
