"""Functions that share dicts and queues."""

import os

import potluck
from potluck import Dict, Queue

app = potluck.App("stateful")
counts = Dict.from_name("counts", create_if_missing=True)
jobs = Queue.from_name("jobs", create_if_missing=True)


@app.function(timeout=60)
def count(word: str) -> int:
    """Uses handles of the module."""
    counts[word] = counts.get(word, 0) + 1
    jobs.put({"word": word, "tags": ("a", 1)}, partition="done")
    return counts[word]


@app.function(timeout=60)
def work(inbox: Queue, outbox: Queue) -> int:
    """Uses handles that it is given, until it is told to stop."""
    done = 0
    while (job := inbox.get()) is not None:
        outbox.put(job * 2)
        done += 1
    return done


@app.function(timeout=60)
def open_by_name(name: str, create: bool) -> str:
    found = Dict.from_name(name, create_if_missing=create)
    found["by"] = "a worker"
    return found["by"]


@app.function(timeout=60)
def put_object(shelf: Dict) -> None:
    shelf["object"] = object()


@app.function(timeout=60)
async def many(shelf: Dict, number: int) -> int:
    import asyncio

    await asyncio.gather(*(shelf.put.aio(each, bytes(1000)) for each in range(number)))
    with Queue.ephemeral() as own:
        getting = [asyncio.create_task(own.get.aio()) for _ in range(number)]
        await own.put_many.aio(list(range(number)))
        assert sorted(await asyncio.gather(*getting)) == list(range(number))
    return len([key async for key in shelf.keys.aio()])


@app.function(timeout=60)
def large(shelf: Dict) -> int:
    shelf["large"] = bytes(3 << 20)
    return len(shelf["large"])


@app.function(timeout=60)
def in_a_fork(shelf: Dict) -> int:
    """What a forked process gets: 7 when it was refused."""
    if not (child := os.fork()):
        try:
            shelf["a"] = 1
        except potluck.Error:
            os._exit(7)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@app.cls(timeout=60)
class Counter:
    @potluck.enter()
    def load(self) -> None:
        self.entered = counts.put("entered", True)

    @potluck.method()
    def get(self) -> bool:
        return bool(self.entered and counts["entered"])
