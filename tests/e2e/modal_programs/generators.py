"""Functions that yield, plain and async, called from plain and async code."""

import asyncio

import modal

app = modal.App("example-generators")


@app.function()
def countdown(start: int):
    yield from range(start, 0, -1)


@app.function()
async def letters(text: str):
    for letter in text:
        await asyncio.sleep(0)
        yield letter


@app.cls()
class Counter:
    step: int = modal.parameter(default=1)

    @modal.method()
    def count(self, until: int):
        yield from range(0, until, self.step)

    @modal.method()
    def last(self, until: int) -> int:
        return max(range(0, until, self.step))


@app.function()
def breaks(after: int):
    yield from range(after)
    raise ValueError("broken")


async def gather_letters() -> str:
    return "".join([letter async for letter in letters.remote_gen.aio("abc")])


@app.local_entrypoint()
def main():
    print("down:", list(countdown.remote_gen(5)))
    print("letters:", asyncio.run(gather_letters()))
    print("steps:", list(Counter(step=3).count.remote_gen(10)), Counter(step=3).last.remote(10))
    print("many:", sum(countdown.remote_gen(1000)))
    for number in countdown.remote_gen(10**9):
        if number == 10**9 - 2:
            break
    print("left early")
    try:
        for number in breaks.remote_gen(2):
            print("got", number)
    except ValueError as error:
        print("raised:", error)
