"""An application that says which version it is."""

import potluck

VERSION = "one"

app = potluck.App("version")


@app.function(cpu=0.5)
@potluck.concurrent(max_inputs=10)
@potluck.asgi_app()
def page():
    async def answer(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": VERSION.encode()})

    return answer
