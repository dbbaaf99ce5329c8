"""How often the node is asked."""

import asyncio

from tests.tui.desk import NOW, SECOND, a_status, a_worker

from potluck_tui.link import POLL_S, QUIET_POLL_S, Link


class Client:
    """Answers so, one after the other, then is gone."""

    def __init__(self, statuses):
        self.statuses = list(statuses)

    async def connect(self):
        return self

    async def ask(self, _make, _kind):
        if not self.statuses:
            raise asyncio.CancelledError
        return self.statuses.pop(0)

    async def aclose(self):
        pass


class Unhurried(Link):
    """Notes its pauses instead of making them."""

    def __init__(self, source):
        super().__init__(source, self)
        self.pauses = []

    def seen(self, status):
        pass

    def lost(self, error, retry_s):
        pass

    async def _pause(self, seconds):
        self.pauses.append(seconds)


def test_a_node_on_which_nothing_happens_is_asked_more_rarely():
    quiet, busy = a_status(), a_status(workers=(a_worker(),))
    later = [a_status(now_us=NOW + each * SECOND) for each in (1, 2)]
    link = Unhurried(Client([quiet, *later, busy, quiet, quiet]))

    async def scene():
        task = asyncio.create_task(link.follow())
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert link.pauses == [POLL_S, QUIET_POLL_S, QUIET_POLL_S, POLL_S, POLL_S, QUIET_POLL_S]
