"""Functions that take and give much, for end-to-end tests."""

import asyncio

import potluck

app = potluck.App("payloads")


@app.function(memory=900)
def turned(data: bytes) -> bytes:
    return data[::-1]


@app.function(memory=900)
async def turned_async(data: bytes) -> bytes:
    await asyncio.sleep(0)
    return data[::-1]


@app.function(memory=900, sandbox="gvisor")
def turned_strictly(data: bytes) -> bytes:
    return data[::-1]
