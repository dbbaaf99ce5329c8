"""An application that says which worker answers, and how often that has."""

import asyncio
import itertools
import os
import socket

import potluck

app = potluck.App("sessions")


@app.function(cpu=0.5)
@potluck.asgi_app()
def count():
    numbers = itertools.count(1)
    place = f"{socket.gethostname()}-{os.urandom(4).hex()}"

    async def answer(scope, receive, send):
        if scope["path"].endswith("/end"):
            os._exit(1)
        # Long enough that others go to other workers.
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{place} {next(numbers)}".encode()})

    return answer
