"""Functions that answer web requests, of each kind; shipped as source like any user's module."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import potluck

app = potluck.App("site")


async def respond(send, status, body, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body})


async def stream(send, pieces, pause_s=0.0, kind=b"text/plain"):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(pause_s)
    await send({"type": "http.response.body", "body": b""})


async def take_all(receive):
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        size += len(event["body"])
        if not event["more_body"]:
            return size


async def wait_for_the_end(scope, receive, send):
    """Says when its client leaves, in a file that the next request reads."""
    await stream_head(send)
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
        state["left"] = "told"
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        state["left"] += " and cancelled"
        raise


async def stream_head(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})


state = {"left": "no", "started": 0}


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            return
        await send({"type": "websocket.send", **{key: event[key] for key in ("text", "bytes") if event.get(key)}})
    state["left"] = f"closed {event['code']}"


async def lifespan(receive, send):
    while True:
        event = await receive()
        state["started"] += event["type"] == "lifespan.startup"
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


@app.function(cpu=0.5, timeout=60, max_containers=1)
@potluck.concurrent(max_inputs=20)
@potluck.asgi_app(label="raw")
def asgi():
    async def answer(scope, receive, send):
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "websocket":
            await echo(receive, send)
        else:
            await PAGES.get(scope["path"].removeprefix(scope["root_path"]), missing)(scope, receive, send)

    return answer


async def facts(scope, receive, send):
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    seen = {**state, "path": scope["path"], "root": scope["root_path"], "query": scope["query_string"].decode()}
    await respond(send, 200, repr(seen | {"method": scope["method"], "headers": headers}).encode())


async def numbers(scope, receive, send):
    await stream(send, (b"data: %d\n\n" % number for number in range(3)), 0.05, b"text/event-stream")


async def large(scope, receive, send):
    await stream(send, (bytes([number % 251]) * 1_000_000 for number in range(50)))


async def upload(scope, receive, send):
    await respond(send, 200, str(await take_all(receive)).encode())


async def dies(scope, receive, send):
    await stream_head(send)
    await asyncio.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


async def kill(scope, receive, send):
    os.kill(os.getpid(), signal.SIGKILL)


async def raises(scope, receive, send):
    raise ValueError("a secret detail")


async def sleeps(scope, receive, send):
    await asyncio.sleep(float(scope["query_string"] or 1))
    await respond(send, 200, b"slept")


async def pid(scope, receive, send):
    await respond(send, 200, str(os.getpid()).encode())


async def missing(scope, receive, send):
    await respond(send, 404, b"no such page")


PAGES = {
    "": facts, "/": facts, "/facts": facts, "/numbers": numbers, "/large": large, "/upload": upload, "/dies": dies,
    "/kill": kill, "/raises": raises, "/sleeps": sleeps, "/wait": wait_for_the_end, "/pid": pid,
}  # fmt: skip


@app.function(cpu=0.5)
@potluck.wsgi_app()
def old_style():
    def answer(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("201 Created", [("Content-Type", "text/plain"), ("X-Path", environ["PATH_INFO"])])
        return [environ["SCRIPT_NAME"].encode(), b" ", str(len(body)).encode()]

    return answer


SERVER = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.path} {self.headers['X-Forwarded-Prefix']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        while size:
            size -= len(self.rfile.read(min(size, 65536)))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(3):
            self.wfile.write(b"5\\r\\nhello\\r\\n")
        self.wfile.write(b"0\\r\\n\\r\\n")

http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


@app.function(cpu=0.5)
@potluck.concurrent(max_inputs=5)
@potluck.web_server(8000, startup_timeout=60)
def own_server():
    subprocess.Popen([sys.executable, "-c", SERVER.replace("\\\\", "\\")])


@app.function(cpu=0.5)
@potluck.asgi_app(requires_proxy_auth=True)
def private():
    return facts


@app.function(cpu=0.5)
@potluck.fastapi_endpoint()
def needs_fastapi() -> str:
    return "never"


@app.cls(cpu=0.5)
@potluck.concurrent(max_inputs=5)
class Model:
    size: int = potluck.parameter(default=3)

    @potluck.enter()
    async def load(self):
        self.words = ["loaded"] * self.size

    @potluck.asgi_app()
    def page(self):
        async def answer(scope, receive, send):
            await respond(send, 200, " ".join(self.words).encode())

        return answer

    @potluck.method()
    def count(self) -> int:
        return len(self.words)


@app.function(cpu=0.5)
def plain(number: int) -> int:
    time.sleep(0)
    return number + 1
