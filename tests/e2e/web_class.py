"""A server that is a class."""

import os
import subprocess
import sys

import potluck

app = potluck.App("served")

PROGRAM = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{os.environ['WORD']} {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Handler).serve_forever()
"""


@app.server(port=9000, cpu=0.5, env={"WORD": "from the class"}, unauthenticated=True)
class Open:
    @potluck.enter()
    def start(self):
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM])

    @potluck.exit()
    def stop(self):
        self.process.terminate()


@app.server(port=9000, cpu=0.5)
class Closed:
    @potluck.enter()
    def start(self):
        subprocess.Popen([sys.executable, "-c", PROGRAM], env={**os.environ, "WORD": "secret"})
