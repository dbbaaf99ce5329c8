"""Applications that call functions."""

import potluck

app = potluck.App("answering")


@app.function(timeout=60)
def inner(n: int) -> int:
    return n * n


@app.function(timeout=60)
@potluck.wsgi_app()
def page():
    def serve(environ, start):
        value = inner.remote(7)
        start("200 OK", [("Content-Type", "text/plain")])
        return [f"{value} {potluck.current_input_id()}".encode()]

    return serve


@app.function(timeout=60)
@potluck.asgi_app()
def apage():
    async def serve(scope, receive, send):
        if scope["type"] != "http":
            return
        value = await inner.remote.aio(6)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{value} {potluck.current_input_id()}".encode()})

    return serve
