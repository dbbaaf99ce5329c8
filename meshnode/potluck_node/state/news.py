"""News from other nodes of the same PostgreSQL database: LISTEN, so that who waits asks nothing meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from potluck_node.state.store import CHANNEL, read
from potluck_node.state.work import Spot

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.state")

# Between two tries to reach a database that went away, seconds.
RETRY_S = 1.0


class News:
    """`heard` is told each spot; `missed` that there may have been others, while the connection was gone."""

    def __init__(self, url: str, heard: Callable[[Spot], None], missed: Callable[[], None]) -> None:
        self._url, self._heard, self._missed = url, heard, missed

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        import psycopg

        started = False
        while True:
            try:
                connection = await trio.to_thread.run_sync(_listen, self._url)
                try:
                    self._missed()
                    if not started:
                        started = True
                        task_status.started()
                    await self._follow(connection)
                finally:
                    connection.close()
            except (psycopg.Error, OSError) as error:
                log.warning("the database of shared state is not heard: %s", error)
            await trio.sleep(RETRY_S)

    async def _follow(self, connection: Any) -> None:
        wire = connection.pgconn
        while True:
            await trio.lowlevel.wait_readable(wire.socket)
            wire.consume_input()
            while (news := wire.notifies()) is not None:
                self._tell(news.extra.decode())

    def _tell(self, text: str) -> None:
        try:
            self._heard(read(text))
        except ValueError:
            log.warning("somebody else writes to the channel %s", CHANNEL)


def _listen(url: str) -> Any:
    import psycopg
    from sqlalchemy import make_url

    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg.connect(plain, autocommit=True, connect_timeout=10)
    connection.execute(f"LISTEN {CHANNEL}")
    return connection
