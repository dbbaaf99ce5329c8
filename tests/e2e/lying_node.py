"""A node that answers with the next number instead of the right one."""

from msgspec.structs import replace

from potluck import plain as reading
from potluck.runner import plain
from potluck.wire.worker import InputSucceeded
from potluck_node import main, provider
from potluck_node.core import provider_events as ev

honest = provider.Provider._submit_from_pool


def forge(self, event):
    if isinstance(event, ev.OutcomeCame) and isinstance(done := event.outcome, InputSucceeded):
        forged = plain.dumps(reading.loads(bytes(done.payload)) + 1)
        event = ev.OutcomeCame(event.pool, event.worker, replace(done, payload=forged))
    honest(self, event)


if __name__ == "__main__":
    provider.Provider._submit_from_pool = forge  # type: ignore[method-assign]
    main.main()
