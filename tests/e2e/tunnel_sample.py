"""Functions that let a port of theirs be reached."""

import socket

import potluck

app = potluck.App("tunnels")
where = potluck.Dict.from_name("where", create_if_missing=True)


@app.function(timeout=60)
def echo(connections: int) -> tuple[int, int]:
    """Answers so many connections with what came, turned round; returns the ports outside and inside."""
    with socket.create_server(("127.0.0.1", 0)) as server, potluck.forward(server.getsockname()[1]) as tunnel:
        where["echo"] = (tunnel.host, tunnel.port)
        for _ in range(connections):
            connection, _ = server.accept()
            with connection:
                data = bytearray()
                while piece := connection.recv(1 << 16):
                    data += piece
                connection.sendall(data[::-1])
    return tunnel.port, server.getsockname()[1] if server.fileno() >= 0 else 0


@app.function(timeout=60)
async def for_ever() -> None:
    import asyncio

    async with potluck.forward(9, unencrypted=True) as tunnel:
        await where.put.aio("for ever", tunnel.tcp_socket)
        await asyncio.sleep(600)
