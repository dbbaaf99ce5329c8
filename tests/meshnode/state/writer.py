"""Puts numbers until it is killed, and prints each once it was acknowledged."""

import sys
from pathlib import Path

import trio

from potluck.wire import state as messages
from potluck_node.clock import SystemClock
from potluck_node.state.service import State
from potluck_node.state.work import Asker


async def main(place):
    async with trio.open_nursery() as nursery:
        state = State(Path(place) if place.startswith("/") else place, "writer", SystemClock(), 1 << 30)
        await nursery.start(state.serve)
        queue = await state.ask(messages.Open(messages.QUEUE, "q", create=True), Asker("writer"))
        number = 0
        while True:
            number += 1
            await state.ask(messages.Enqueue(queue.id, (b"%d" % number,)), Asker("writer"))
            print(number, flush=True)


trio.run(main, sys.argv[1])
