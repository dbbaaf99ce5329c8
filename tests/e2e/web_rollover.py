"""An application whose next version may be broken, or never ready."""

import time

import potluck

VERSION = "one"

app = potluck.App("rolling")


@app.function(cpu=0.5)
@potluck.concurrent(max_inputs=50)
@potluck.asgi_app()
def page():
    if VERSION == "broken":
        raise RuntimeError("this version cannot start")
    if VERSION == "slow":
        time.sleep(600)

    async def answer(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": VERSION.encode()})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while (event := await receive())["type"] != "websocket.disconnect":
                if event["type"] == "websocket.receive":
                    await send({"type": "websocket.send", "text": VERSION})

    return answer
