"""A function that calls another one whose image cannot be built."""

import potluck

app = potluck.App("half")


@app.function(timeout=60, image=potluck.Image.local_python().run_commands("false"))
def broken() -> None: ...


@app.function(timeout=60)
async def asks_broken() -> None:
    await broken.remote.aio()
