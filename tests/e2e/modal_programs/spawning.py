"""Calls that are started now and asked later."""

import modal

app = modal.App("example-spawning")


@app.function()
def add(a: int, b: int) -> int:
    return a + b


@app.local_entrypoint()
async def main():
    one = await add.spawn.aio(1, 2)
    two = await add.spawn.aio(3, 4)
    print("gathered:", modal.FunctionCall.gather(one, two))
    again = modal.FunctionCall.from_id(one.object_id)
    print("again:", await again.get.aio(timeout=30))
    many = await add.spawn_map.aio([1, 2, 3], [10, 20, 30])
    print("many:", [each async for each in many.iter.aio()], await many.num_inputs.aio())
    try:
        await (await add.spawn.aio(1, "2")).get.aio()
    except TypeError:
        print("raised")
