"""TLS over one TCP connection, for one reader and one writer at once."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import trio

# Bytes asked of the socket at once: four records, which still fit a processor's second cache when they are decrypted.
READ_BYTES = 64 << 10

# Encrypted and written at once, bytes.
WRITE_BYTES = 256 << 10

# trio lets a socket wait with 16 KiB unsent, for the sake of latency; here that would starve the connection.
UNSENT_BYTES = 256 << 10


class TlsPipe:
    """`handshake` first; then `read` and `write` may run at the same time, each by one task."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._stream = stream
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side)
        with suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def handshake(self) -> None:
        """Raises `OSError` (`ssl.SSLError` is one) when the other side has not the key of its certificate."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()  # tells the other side why
                raise
            else:
                await self._flush()
                return

    def certificate(self) -> bytes:
        """The other side's, in DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    async def read(self, count: int) -> bytes:
        """What has come, at most about `count` bytes. Raises `OSError` at the end."""
        parts: list[bytes] = []
        size = 0
        while size < count:
            try:
                part = self._tls.read(count - size)
            except ssl.SSLWantReadError:
                if parts:
                    break
                await self._fill()
                continue
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                break
            parts.append(part)
            size += len(part)
        # An answer of TLS itself (to a change of keys) goes with the next write: a reader that waits for a slow
        # socket would keep the other side's writer waiting, and that one this side's reader.
        if not parts:
            raise ConnectionError("the other side closed the lane")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes) -> None:
        """Raises `OSError`. Cancelled, it leaves the connection unusable."""
        view = memoryview(data)
        for start in range(0, len(view), WRITE_BYTES):
            self._tls.write(view[start : start + WRITE_BYTES])
            await self._flush()

    async def close(self) -> None:
        """Say that nothing more comes, wait for the same, then close: what was sent is read, however late."""
        try:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                with suppress(ssl.SSLError):
                    self._tls.unwrap()
                await self._flush()
                await self._stream.send_eof()
                while await self._stream.receive_some(READ_BYTES):
                    pass
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _fill(self) -> None:
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionError(f"the lane is gone: {error}") from error
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        if not self._out.pending:
            return
        try:
            await self._stream.send_all(self._out.read())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionError(f"the lane is gone: {error}") from error
